// Package otlptest is a collector for tests: it takes OTLP over HTTP and keeps the
// spans. Nothing that ships imports it.
package otlptest
