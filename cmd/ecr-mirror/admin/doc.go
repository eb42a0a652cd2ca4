// Package admin answers the admin port. For whoever reaches it: a page for people at / and the same as JSON at /overview, /metrics,
// /healthz, /readyz and /status. For this very host, or for whoever logs in: /plan, /sync, /dead-letters, /purge, /debug/pprof/ and
// the page's forms, which cost much or change something.
//
// The page is made of a template and what Options hand in. However many look at it, all jobs and all metrics are looked at every two
// seconds at most, and a page of images reads a bounded part of the queue. It works without scripts; web/page.js asks for it again
// and puts in what differs.
//
// Limitations: it knows no command and no configuration. It speaks plain HTTP, and has no sessions: a browser sends the login with
// each request. Figures are since the start of the process, and this process's alone where there are several.
package admin
