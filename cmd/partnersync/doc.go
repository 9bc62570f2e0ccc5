// Command partnersync receives partner-program webhooks, maps them, and keeps
// CRMs in step with them. main.go parses and dispatches; each command is a file of
// its own.
package main
