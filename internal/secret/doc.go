// Package secret holds values that must never be printed. It never logs,
// formats or marshals them: only Reveal gives the text, at the place that needs it.
package secret
