package config

import (
	"net/netip"

	"partnersync/internal/diag"
	"partnersync/receiver/sources"
)

// Network is an address or a network, written as 192.0.2.7 or 192.0.2.0/24.
type Network struct{ netip.Prefix }

// DecodeNode reads a network.
func (p *Network) DecodeNode(n diag.Node, d *diag.Decoding) {
	text, ok := d.Scalar(n)
	if !ok {
		return
	}
	var err error
	if p.Prefix, err = sources.ParseNetwork(text); err != nil {
		d.Errorf(n, "write an address or a network, such as 192.0.2.7 or 192.0.2.0/24", "%q is no network", n.Text())
	}
}
