// Package sinks is HTTP out: it writes records to a target that a YAML description tells it how to speak to.
//
// A description (Load) is a preset of presets/*.yaml with the user's keys laid on top, every expression compiled and
// checked. A Sink (New) renders one request for many rows, holds it to the target's limits, sends it at most twice, and
// gives every row a Result of a closed set of classes. It owns the grammar of descriptions, authentication, the rate
// limits, the HTTP client and the reading of answers.
//
// It never knows a target by name, never retries what may have had an effect, never follows a redirect, never keeps
// state across processes but what its caller's TokenStore holds, and knows neither the queue nor the database: what to do
// about a class is the caller's.
package sinks
