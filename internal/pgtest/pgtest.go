//go:build unix

package pgtest

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"partnersync/internal/localpg"
	"partnersync/migrations"
)

// EnvURL names the variable with the URL of a server for tests.
const EnvURL = "PARTNERSYNC_TEST_DATABASE_URL"

const (
	testPrefix     = "partnersync_test_"
	templatePrefix = "partnersync_template_"
	// No step of the setup takes this long on a machine that is alive.
	setupTimeout = 2 * time.Minute
	// A database on a server that is not ours, of a test process that was killed.
	forgottenAfter = 24 * time.Hour
)

// URL returns a fresh database that has all migrations. It is dropped when the test
// ends, whoever is still connected.
func URL(t testing.TB) string {
	t.Helper()
	c := acquire(t)
	return c.create(t, c.template)
}

// EmptyURL returns a fresh database without anything in it, dropped like that of URL.
func EmptyURL(t testing.TB) string {
	t.Helper()
	return acquire(t).create(t, "")
}

// Pool returns a pool on a database like that of URL, closed when the test ends.
func Pool(t testing.TB) *pgxpool.Pool {
	t.Helper()
	pool, err := pgxpool.New(context.Background(), URL(t))
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	t.Cleanup(pool.Close)
	return pool
}

// cluster is a server and the template on it.
type cluster struct {
	admin    string // URL of a database that stays
	template string
	slot     *slot // nil, as the server, when it is not a private one
	server   *localpg.Server
}

// close stops the server if it is a private one.
func (c *cluster) close() error {
	if c.server == nil {
		return nil
	}
	defer c.slot.release()
	return c.server.Stop()
}

// shared is the server of this test process. Tests have no owner in common but the
// process, so this is a variable of the package.
var shared struct {
	sync.Mutex
	cluster *cluster
	users   int
}

// acquire returns the shared server until the test ends. The first user starts it and the
// last one stops it, so that none outlives the tests, and no goroutine either.
func acquire(t testing.TB) *cluster {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	if shared.users == 0 {
		c, err := open()
		if err != nil {
			t.Fatalf("pgtest: %v", err)
		}
		shared.cluster = c
	}
	shared.users++
	t.Cleanup(func() {
		shared.Lock()
		defer shared.Unlock()
		if shared.users--; shared.users > 0 {
			return
		}
		if err := shared.cluster.close(); err != nil {
			t.Errorf("pgtest: %v", err)
		}
	})
	return shared.cluster
}

// open brings up the server that tests share, with its template.
func open() (*cluster, error) {
	ctx, cancel := context.WithTimeout(context.Background(), setupTimeout)
	defer cancel()
	if admin := os.Getenv(EnvURL); admin != "" {
		c := &cluster{admin: admin}
		if err := c.dropForgotten(ctx); err != nil {
			return nil, fmt.Errorf("%s: %w", EnvURL, err)
		}
		return c, c.makeTemplate(ctx)
	}
	return openPrivate(ctx)
}

// openPrivate starts a private server in a free slot.
func openPrivate(ctx context.Context) (*cluster, error) {
	s, err := takeSlot()
	if err != nil {
		return nil, err
	}
	c, err := s.start(ctx)
	if err != nil {
		s.release()
		return nil, err
	}
	return c, nil
}

// create clones a template, "" for the empty one, and returns the URL of the clone.
func (c *cluster) create(t testing.TB, template string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), setupTimeout)
	defer cancel()
	name := testPrefix + strconv.FormatInt(time.Now().Unix(), 10) + "_" + strings.ToLower(rand.Text()[:10])
	err := c.with(ctx, func(conn *pgx.Conn) error {
		query := "CREATE DATABASE " + name + " TEMPLATE " + cmp.Or(template, "template0")
		// Copying files takes half the time of the default, which is to log all pages. It begins
		// and ends with a checkpoint, so not where fsync is on; Postgres 14 always does so.
		major, _, _ := strings.Cut(conn.PgConn().ParameterStatus("server_version"), ".")
		if n, _ := strconv.Atoi(major); n >= 15 && c.server != nil {
			query += " STRATEGY file_copy"
		}
		_, err := conn.Exec(ctx, query)
		return err
	})
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), setupTimeout)
		defer cancel()
		if err := c.exec(ctx, dropDatabase(name)); err != nil {
			t.Errorf("pgtest: %v", err)
		}
	})
	return withDatabase(c.admin, name)
}

// makeTemplate makes the template of these migrations unless it is there. It gets its
// name when it is whole; a lock keeps other test processes waiting meanwhile.
func (c *cluster) makeTemplate(ctx context.Context) error {
	var sql strings.Builder
	if err := migrations.Print(&sql); err != nil {
		return err
	}
	sum := sha256.Sum256([]byte(sql.String()))
	c.template = templatePrefix + hex.EncodeToString(sum[:6])

	return c.with(ctx, func(conn *pgx.Conn) error {
		if _, err := conn.Exec(ctx, "SELECT pg_advisory_lock(hashtext($1))", c.template); err != nil {
			return err
		}
		var there bool
		err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", c.template).Scan(&there)
		if err != nil || there {
			return err
		}
		unfinished := c.template + "_unfinished"
		for _, query := range []string{dropDatabase(unfinished), "CREATE DATABASE " + unfinished + " TEMPLATE template0"} {
			if _, err := conn.Exec(ctx, query); err != nil {
				return err
			}
		}
		if err := migrations.Up(ctx, withDatabase(c.admin, unfinished)); err != nil {
			return err
		}
		_, err = conn.Exec(ctx, "ALTER DATABASE "+unfinished+" RENAME TO "+c.template)
		return err
	})
}

// dropForgotten drops databases of test processes that were killed. Others may be at work
// on the server, so it goes by age.
func (c *cluster) dropForgotten(ctx context.Context) error {
	return c.dropWhere(ctx, testPrefix, func(name string) bool {
		made, _, _ := strings.Cut(strings.TrimPrefix(name, testPrefix), "_")
		seconds, err := strconv.ParseInt(made, 10, 64)
		return err == nil && time.Since(time.Unix(seconds, 0)) >= forgottenAfter
	})
}

// dropOldTemplates drops those of other migrations than the present ones.
func (c *cluster) dropOldTemplates(ctx context.Context) error {
	return c.dropWhere(ctx, templatePrefix, func(name string) bool { return name != c.template })
}

// dropWhere drops the databases with this prefix that are unwanted.
func (c *cluster) dropWhere(ctx context.Context, prefix string, unwanted func(name string) bool) error {
	return c.with(ctx, func(conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, "SELECT datname FROM pg_database WHERE starts_with(datname, $1)", prefix)
		if err != nil {
			return err
		}
		names, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			return err
		}
		for _, name := range names {
			if !unwanted(name) {
				continue
			}
			if _, err := conn.Exec(ctx, dropDatabase(name)); err != nil {
				return err
			}
		}
		return nil
	})
}

func (c *cluster) exec(ctx context.Context, query string) error {
	return c.with(ctx, func(conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, query)
		return err
	})
}

func (c *cluster) with(ctx context.Context, do func(*pgx.Conn) error) error {
	conn, err := pgx.Connect(ctx, c.admin)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	return do(conn)
}

func dropDatabase(name string) string {
	return "DROP DATABASE IF EXISTS " + pgx.Identifier{name}.Sanitize() + " WITH (FORCE)"
}

// withDatabase is a URL with another database.
func withDatabase(databaseURL, name string) string {
	u, err := url.Parse(databaseURL)
	if err != nil || u.Scheme == "" {
		return databaseURL + " dbname=" + name // keyword and value form: the last one counts
	}
	u.Path = "/" + name
	return u.String()
}
