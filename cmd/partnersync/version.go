package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/alecthomas/kong"
)

// version is set by the linker for releases.
var version = ""

type versionCmd struct{}

func (versionCmd) Run(cli *commands, s streams) error {
	if cli.JSON {
		return printJSON(s.out, map[string]string{"version": versionText(), "go": runtime.Version()})
	}
	_, err := fmt.Fprintln(s.out, versionLine())
	return err
}

// versionFlag prints the version, whatever else there is.
type versionFlag bool

// BeforeReset is called by kong.
func (versionFlag) BeforeReset(app *kong.Kong) error {
	fmt.Fprintln(app.Stdout, versionLine())
	app.Exit(0)
	return nil
}

func versionLine() string {
	return fmt.Sprintf("partnersync %s (%s, %s/%s)", versionText(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

func versionText() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "devel"
}
