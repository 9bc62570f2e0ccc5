//go:build unix

package localpg

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"runtime"
	"sort"
	"strconv"
	"strings"
	"syscall"
)

// account is whom Postgres runs as: nobody special, unless we are root.
type account struct {
	name string
	cred *syscall.Credential // nil: as ourselves
}

// chooseAccount takes the owner of the data when there is some, since Postgres runs as
// nobody else, and otherwise a user that has little to lose.
func chooseAccount(data string) (account, error) {
	if os.Geteuid() != 0 {
		return account{}, nil
	}
	if info, err := os.Stat(data); err == nil {
		st := info.Sys().(*syscall.Stat_t)
		if st.Uid == 0 {
			return account{}, fmt.Errorf("%s belongs to root, as whom Postgres does not run: chown it to the user postgres", data)
		}
		name := strconv.Itoa(int(st.Uid))
		if u, err := user.LookupId(name); err == nil {
			name = u.Username
		}
		return account{name, &syscall.Credential{Uid: st.Uid, Gid: st.Gid}}, nil
	}
	for _, name := range []string{"postgres", "_postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		// macOS counts nobody as -2.
		uid, uidErr := strconv.ParseInt(u.Uid, 10, 64)
		gid, gidErr := strconv.ParseInt(u.Gid, 10, 64)
		if uidErr == nil && gidErr == nil {
			return account{name, &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}, nil
		}
	}
	return account{}, errors.New("no user postgres or nobody to run Postgres as, which refuses root: make one, or set DATABASE_URL")
}

// own gives path to the account.
func (a account) own(path string) error {
	if a.cred == nil {
		return nil
	}
	return os.Chown(path, int(a.cred.Uid), int(a.cred.Gid))
}

// binaries is one installed Postgres.
type binaries struct {
	dir   string
	major int
}

func (b binaries) path(name string) string { return filepath.Join(b.dir, name) }

// findBinaries lists what is installed and runs as the account: first what is on PATH,
// then the usual places, newest first. dirs replaces the search.
func findBinaries(ctx context.Context, as account, dirs []string) ([]binaries, error) {
	if dirs == nil {
		dirs = binaryDirs()
	}
	var found []binaries
	var refused error
	seen := make(map[string]bool)
	for _, dir := range dirs {
		if seen[dir] || !executable(filepath.Join(dir, "initdb")) || !executable(filepath.Join(dir, "postgres")) {
			continue
		}
		seen[dir] = true
		major, err := majorOf(ctx, dir, as)
		if err != nil {
			refused = fmt.Errorf("%s: %w", filepath.Join(dir, "postgres"), err)
			continue
		}
		found = append(found, binaries{dir, major})
	}
	switch {
	case len(found) > 0:
		return found, nil
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case refused != nil:
		return nil, fmt.Errorf("%w that runs here (%w): %s", ErrNotFound, refused, advice(runtime.GOOS))
	}
	return nil, fmt.Errorf("%w: %s", ErrNotFound, advice(runtime.GOOS))
}

// choose takes the binaries of one major version, or the first if any will do.
func choose(found []binaries, major int, data string) (binaries, error) {
	if major == 0 {
		return found[0], nil
	}
	var have []string
	for _, b := range found {
		if b.major == major {
			return b, nil
		}
		have = append(have, strconv.Itoa(b.major))
	}
	return binaries{}, fmt.Errorf("%s was made by Postgres %d, and installed is %s: install Postgres %d, or set DATABASE_URL",
		data, major, strings.Join(have, ", "), major)
}

// binaryDirs are the places to look in, best first.
func binaryDirs() []string {
	var dirs []string
	if p, err := exec.LookPath("postgres"); err == nil {
		// What is on PATH is often a link to where the other programs are.
		if real, err := filepath.EvalSymlinks(p); err == nil {
			dirs = append(dirs, filepath.Dir(real))
		}
		dirs = append(dirs, filepath.Dir(p))
	}
	for _, pattern := range []string{
		"/usr/lib/postgresql/*/bin",                          // Debian, Ubuntu
		"/usr/pgsql-*/bin",                                   // Fedora, RHEL
		"/usr/libexec/postgresql*",                           // Alpine
		"/opt/homebrew/opt/postgresql@*/bin",                 // Homebrew
		"/usr/local/opt/postgresql@*/bin",                    // Homebrew on Intel
		"/Applications/Postgres.app/Contents/Versions/*/bin", // Postgres.app
		"/usr/local/pgsql/bin",                               // from source
	} {
		matches, _ := filepath.Glob(pattern) // fails on a bad pattern only
		sort.SliceStable(matches, func(i, j int) bool { return lastNumber(matches[i]) > lastNumber(matches[j]) })
		dirs = append(dirs, matches...)
	}
	return dirs
}

var number = regexp.MustCompile(`\d+`)

// lastNumber is the version in a path like /usr/lib/postgresql/15/bin.
func lastNumber(path string) int {
	all := number.FindAllString(path, -1)
	if len(all) == 0 {
		return 0
	}
	n, _ := strconv.Atoi(all[len(all)-1])
	return n
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// majorOf asks the server program for its version, as the account that will run it, so
// that one out of its reach is noticed here.
func majorOf(ctx context.Context, dir string, as account) (int, error) {
	out, err := runAs(ctx, as, "/", filepath.Join(dir, "postgres"), "--version").Output()
	if err != nil {
		return 0, err
	}
	major, err := strconv.Atoi(number.FindString(string(out)))
	if err != nil {
		return 0, fmt.Errorf("version %q not understood", strings.TrimSpace(string(out)))
	}
	return major, nil
}

// runAs prepares a short command in a working directory, which the account has to be
// able to enter.
func runAs(ctx context.Context, as account, workDir, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = workDir
	cmd.Env = environment()
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: as.cred}
	return cmd
}

func advice(goos string) string {
	install := "with the package manager"
	switch goos {
	case "darwin":
		install = "(brew install postgresql@17)"
	case "linux":
		install = "(Debian, Ubuntu: apt-get install postgresql; Fedora, RHEL: dnf install postgresql-server; Alpine: apk add postgresql)"
	}
	return "install it " + install + ", or set DATABASE_URL to one that runs already"
}
