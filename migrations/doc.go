// Package migrations brings a database to the schema that this binary needs:
// River's tables first, by rivermigrate, then ours, by goose from the embedded
// SQL files. [Up] applies what is pending, [Status] tells what is, and [Print]
// writes all of it as SQL for those who run migrations themselves.
//
// The package knows no table of ours by name beyond the one that remembers
// which migrations ran, and it never goes down: a way back is a new migration.
package migrations
