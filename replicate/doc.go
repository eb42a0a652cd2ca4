// Package replicate makes images of a source exist at destinations.
//
// The intent comes first: a Job is written to the Queue, durably, before anything happens, and its Key is its idempotency.
// Workers lease jobs and have a Copier do them, bottom-up with the tag last, so that an image is either not visible at the
// destination or complete. Every step may be repeated: a kill at any point costs a repetition, never a job.
//
// What a tag job writes is decided by the source when the job runs, not by the event that asked for it: events arrive
// late, twice and in the wrong order. A Sweep finds what they lost by comparing source and destination. A Reaper deletes, with
// every precaution, what was deleted at the source. A Trail keeps chained mirrors from going in circles.
//
// # Limitations
//
// A Trail knows what this process wrote: mirrors that copy the same tags to each other belong into one process. Of more
// than MaxTrails tags and manifests that chained mirrors wrote it forgets the oldest: if then one of two mutual mirrors moves such
// a tag, the other may move it back. The queue file belongs to one process;
// replicas that share an SQS queue lend each other's jobs from there (Job.Lent), and may then send a layer that two of their
// images have in common twice. All its jobs are held in memory as well, about 500 bytes each. Of more than MaxReceipts
// receipts, or notes of what images brought along, the oldest are forgotten. Only events tell of deletions: one whose event is lost leaves the image where it is. A
// job that kills the process each time it runs is tried for ever. What is about an image (company.go) is found by asking the
// source for the referrers of the image and of those that an index holds, and for four tags of each; other conventions are
// copied as images of their own. A sweep takes the receipt's word for the chosen platforms of an index, and their images are
// not deleted with it. Blobs are mounted from repositories to which this process copied them. A sweep forgets when it ran
// last when the process ends: the next one compares everything. Receipts, and so the knowledge of what has expired, belong
// to one queue file.
package replicate
