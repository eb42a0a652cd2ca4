// Package admin answers the admin port: /metrics, /healthz and /readyz for whoever reaches it, /status for them too, and to requests
// from this very host /plan, /sync, /dead-letters and /purge, which cost many calls or change something.
//
// Limitations: it knows no command and no configuration; what it answers from comes in Options.
package admin
