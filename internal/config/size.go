package config

import (
	"strconv"
	"strings"

	"partnersync/internal/diag"
)

// Size is a number of bytes, written as 1GiB, 500MB or 1073741824.
type Size int64

// DecodeNode reads a size.
func (s *Size) DecodeNode(n diag.Node, d *diag.Decoding) {
	text, ok := d.Scalar(n)
	if !ok {
		return
	}
	number, factor := strings.TrimSpace(text), int64(1)
	for _, u := range []struct {
		unit   string
		factor int64
	}{
		{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
		{"kB", 1e3}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"B", 1},
	} {
		if digits, has := strings.CutSuffix(number, u.unit); has {
			number, factor = strings.TrimSpace(digits), u.factor
			break
		}
	}
	v, err := strconv.ParseInt(number, 10, 64)
	if err != nil || v < 0 || v > 1<<60/factor {
		d.Errorf(n, "write a size such as 512MiB or 1GiB", "%q is not a size", n.Text())
		return
	}
	*s = Size(v * factor)
}
