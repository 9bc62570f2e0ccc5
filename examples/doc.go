// Package examples holds one folder per pairing of a sender and a CRM: a config
// to begin with, what has to be set up in the CRM, and the records that the CRM
// holds once every sample event of the sender has arrived.
//
// It is no code to import. Its test runs each folder with the real receiver and
// the real workers against the sandbox; it proves nothing about a CRM's account.
package examples
