package config

import "partnersync/internal/diag"

// Size is a number of bytes, written as 1GiB, 500MB or 1073741824.
type Size int64

// DecodeNode reads a size.
func (s *Size) DecodeNode(n diag.Node, d *diag.Decoding) {
	text, ok := d.Scalar(n)
	if !ok {
		return
	}
	v, ok := diag.ParseSize(text)
	if !ok {
		d.Errorf(n, "write a size such as 512MiB or 1GiB", "%q is not a size", n.Text())
		return
	}
	*s = Size(v)
}
