package mappers

import "slices"

// Ways are the sets of properties by which mappings of a sink look for records of an object, each once.
func (m *Mapper) Ways(sink, object string) [][]string {
	var out [][]string
	add := func(of string, ways []way) {
		if of != object {
			return
		}
		for _, w := range ways {
			names := w.properties()
			if !slices.ContainsFunc(out, func(o []string) bool { return slices.Equal(o, names) }) {
				out = append(out, names)
			}
		}
	}
	for _, r := range m.records[sink] {
		add(r.object, r.match)
		for _, l := range r.links {
			add(l.To, l.match)
		}
	}
	return out
}
