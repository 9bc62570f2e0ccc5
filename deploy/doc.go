// Package deploy holds the manifests, the Prometheus config and the service unit
// that run partnersync, and the tests that decode them strictly. It has no code.
package deploy
