package jobs

import (
	"bytes"

	"partnersync/internal/ledger"
)

// happening is what one event says of fields: the newest says what is to be, or for those named
// in first the oldest. The order is the oracle's own, so that a fault in the order of versions
// is seen.
type happening struct {
	set, first map[string]any
	version    ledger.Version
}

func before(a, b ledger.Version) bool {
	switch {
	case a.At != b.At:
		return a.At < b.At
	case a.Rank != b.Rank:
		return a.Rank < b.Rank
	}
	return bytes.Compare(a.Event[:], b.Event[:]) < 0
}

func oracle(events []happening) map[string]any {
	want, by := map[string]any{}, map[string]ledger.Version{}
	for _, e := range events {
		for name, value := range e.set {
			if have, ok := by[name]; !ok || before(have, e.version) {
				want[name], by[name] = value, e.version
			}
		}
		for name, value := range e.first {
			if have, ok := by[name]; !ok || before(e.version, have) {
				want[name], by[name] = value, e.version
			}
		}
	}
	return want
}
