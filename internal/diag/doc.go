// Package diag is about what people write by hand and get wrong: YAML
// documents whose every value knows its place, strict decoding that reports all
// problems at once, and a printer that shows each with file:line:col, the line,
// a caret and a hint.
//
// It is the only package that imports the YAML library. It knows nothing of
// partnersync's own configuration.
package diag
