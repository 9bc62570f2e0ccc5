package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// version is set by the linker for releases.
var version = ""

type versionCmd struct{}

func (versionCmd) Run(cli *commands, s streams) error {
	if cli.JSON {
		return printJSON(s.out, map[string]string{"version": versionText(), "go": runtime.Version()})
	}
	fmt.Fprintf(s.out, "partnersync %s (%s, %s/%s)\n", versionText(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return nil
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
