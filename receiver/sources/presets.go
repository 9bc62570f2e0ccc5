package sources

import (
	"embed"
	"io/fs"
	"path"
	"strings"
)

//go:embed *.yaml
var presetFiles embed.FS

//go:embed samples
var sampleFiles embed.FS

// Presets lists the names of the senders that come described.
func Presets() []string {
	files, err := fs.Glob(presetFiles, "*.yaml")
	if err != nil {
		return nil
	}
	for i, f := range files {
		files[i] = strings.TrimSuffix(f, ".yaml")
	}
	return files
}

// Preset returns the YAML of a preset.
func Preset(name string) ([]byte, bool) {
	data, err := presetFiles.ReadFile(name + ".yaml")
	return data, err == nil
}

// PresetFile is the file name that problems inside a preset carry.
func PresetFile(name string) string { return "receiver/sources/" + name + ".yaml" }

// sample returns a real body of an event of a preset, or nil.
func sample(preset, event string) []byte {
	if preset == "" {
		return nil
	}
	data, err := sampleFiles.ReadFile(path.Join("samples", preset, event+".json"))
	if err != nil {
		return nil
	}
	return data
}
