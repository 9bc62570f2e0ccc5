// Package grafana builds the dashboards below dashboards/ from short descriptions
// of their panels, so that all have the same variables, links, colours and words.
// `go test ./grafana -update` writes the files; a test holds them equal.
//
// [Draw] makes the pictures of docs/ from a Prometheus that has watched a run:
//
//	go test ./grafana -run TestWatchedByPrometheus -record 10m -pictures ../docs/pictures -timeout 30m
//
// Beside it are the alert rules with their tests, the runbooks, and what Grafana
// reads at its start (provisioning/). Nothing here is part of the binary.
package grafana
