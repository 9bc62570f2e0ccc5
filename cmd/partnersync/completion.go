package main

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/posener/complete"

	"partnersync/internal/config"
	"partnersync/mappers"
	"partnersync/receiver/sources"
	"partnersync/sinks"
)

type completionCmd struct {
	Shell string `arg:"" help:"bash, zsh or fish." enum:"bash,zsh,fish"`
}

// scripts have a shell call partnersync, which finds the line in COMP_LINE.
var scripts = map[string]string{
	"bash": "complete -C %[1]q partnersync\n",
	"zsh":  "autoload -U +X bashcompinit && bashcompinit\ncomplete -C %[1]q partnersync\n",
	"fish": `function __complete_partnersync
    set -lx COMP_LINE (commandline -cp)
    test -z (commandline -ct)
    and set COMP_LINE "$COMP_LINE "
    %[1]q
end
complete -f -c partnersync -a "(__complete_partnersync)"
`,
}

func (c completionCmd) Run(s streams) error {
	program, err := os.Executable()
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(s.out, scripts[c.Shell], program)
	return err
}

// predictors complete what stands in the config, by the names in the tags of flags and arguments.
func predictors() map[string]complete.Predictor {
	names := func(list func(cfg *config.Config) []string) complete.Predictor {
		return complete.PredictFunc(func(complete.Args) []string {
			cfg, _ := config.Load(configOf(strings.Fields(os.Getenv("COMP_LINE"))), config.Options{Lenient: true})
			if cfg == nil {
				cfg = &config.Config{}
			}
			found := list(cfg)
			if os.Getenv("COMP_TYPE") != "" { // bash and zsh put it into the line as it is, fish does not
				for i, name := range found {
					found[i] = strings.ReplaceAll(name, " ", `\ `)
				}
			}
			return found
		})
	}
	return map[string]complete.Predictor{
		"source":           names(func(cfg *config.Config) []string { return sortedKeys(cfg.Sources) }),
		"sink":             names(func(cfg *config.Config) []string { return sortedKeys(cfg.Sinks) }),
		"source or preset": names(func(cfg *config.Config) []string { return append(sortedKeys(cfg.Sources), sources.Presets()...) }),
		"sink or preset":   names(func(cfg *config.Config) []string { return append(sortedKeys(cfg.Sinks), sinks.Presets()...) }),
		"mapping": names(func(cfg *config.Config) (list []string) {
			if cfg.Mappings != nil {
				for _, m := range cfg.Mappings.Mappings() {
					if !slices.Contains(list, m.Name) {
						list = append(list, m.Name)
					}
				}
			}
			return list
		}),
		"event": names(func(cfg *config.Config) []string { return eventsOf(cfg, true) }),
		"type":  names(func(cfg *config.Config) []string { return eventsOf(cfg, false) }),
		"function": names(func(*config.Config) (list []string) {
			for _, f := range mappers.Functions() {
				list = append(list, f.Name)
			}
			return list
		}),
		"file":    complete.PredictFiles("*.yaml"),
		"status":  complete.PredictSet(statuses...),
		"outcome": complete.PredictSet(outcomes...),
	}
}

// eventsOf lists the events of a config, with the names of their sources or without.
func eventsOf(cfg *config.Config, full bool) (list []string) {
	for _, source := range sortedKeys(cfg.Sources) {
		for _, event := range cfg.Sources[source].EventNames() {
			if full {
				event = source + "." + event
			}
			if !slices.Contains(list, event) {
				list = append(list, event)
			}
		}
	}
	return list
}

// configOf is the config that a line names.
func configOf(words []string) string {
	for i, word := range words {
		if file, ok := strings.CutPrefix(word, "--config="); ok {
			return file
		}
		if word == "--config" && i+1 < len(words) {
			return words[i+1]
		}
	}
	return "config.yaml"
}
