// Package config turns a YAML file into everything that runs: settings,
// sources, sinks, tables and mappings, all compiled and checked against each
// other. It reports every problem at once and starts nothing.
package config
