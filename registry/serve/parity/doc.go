// Package parity sends the same requests to Distribution's own handlers (handlers.App) and to registry/serve, and compares
// statuses, headers, bodies and error codes: every difference is listed in its test, with the reason.
//
// It is a module of its own so that what Distribution's application needs is not needed by ecr-mirror.
package parity
