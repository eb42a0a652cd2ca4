// Package admin answers the admin port: /metrics, /healthz, /readyz and /status for whoever reaches it, and /plan, /sync,
// /dead-letters, /purge and /debug/pprof/, which cost much or change something, for this very host, or for whoever logs in.
//
// Limitations: it knows no command and no configuration; what it answers from comes in Options.
package admin
