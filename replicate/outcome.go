package replicate

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// settling is how long what an event told of may not be there yet, or the tag name what it named before: Distribution tells of a
// push before it writes the tag (registry/handlers/manifests.go, PutManifest).
const settling = 5 * time.Second

// outcome is how an attempt ended, for the metrics and the log.
type outcome struct {
	result string
	level  slog.Level
	attrs  []slog.Attr
	stored error // the queue's own trouble; the job is then repeated
}

// work does one attempt at j and tells the queue, the metrics and the log how it went. err is why it failed, or did not end.
func (w *Workers) work(ctx context.Context, j Job) (result string, err error) {
	began := w.o.Now()
	w.speed.begin(began)
	res, err := w.attempt(ctx, j)
	now := w.o.Now()
	handed := errors.Is(err, errHanded)
	w.speed.end(now, err == nil || handed || errors.Is(err, ErrGone) || errors.Is(err, ErrUnwanted))
	if err != nil && ctx.Err() != nil && !handed && !errors.Is(err, ErrGone) {
		w.o.Queue.Release(j)
		return "released", err
	}
	gone := errors.Is(err, ErrGone) && registry.CodeOf(err) != registry.CodeNameUnknown
	other := err == nil && j.Hint != "" && j.Hint != res.Digest
	early := (gone || other) && j.Lane == registry.LaneEvent && time.Since(j.Created) < settling
	if early && (gone || res.Found) {
		w.o.Queue.Postpone(j, settling/10)
		return "postponed", nil
	}
	var o outcome
	switch {
	case errors.Is(err, ErrGone):
		o.result = "gone"
	case errors.Is(err, ErrUnwanted):
		o.result = "unwanted"
	case handed:
		o.result = "handed_over"
	case errors.Is(err, ErrEcho):
		o.result = "echo"
	}
	switch {
	case o.result != "": // there is nothing to copy, which is no failure
		o.stored, err = w.o.Queue.Done(j), nil
	case err != nil:
		o = w.failed(j, err, now)
	default:
		o = w.copied(ctx, j, res, other, early)
	}
	w.report(ctx, j, o, now.Sub(began))
	return o.result, err
}

func (w *Workers) failed(j Job, cause error, now time.Time) outcome {
	after, err := w.o.Queue.Fail(j, cause)
	return outcome{result: registry.Result(cause), level: slog.LevelWarn, stored: err,
		attrs: []slog.Attr{slog.String("state", after.State.String()), slog.Int("attempts", after.Attempts),
			slog.Duration("retryIn", max(0, after.NextAt.Sub(now))), slog.Any("error", cause)}}
}

// copied files the receipts. other: the tag names another image than the event said; early: it may name that one in a moment.
func (w *Workers) copied(ctx context.Context, j Job, res Result, other, early bool) outcome {
	o := outcome{result: "done", attrs: []slog.Attr{slog.String("digest", res.Digest.String()), slog.Int64("bytes", res.Bytes)}}
	found := res.Found && j.Attempts == 0
	content := Receipt{Key: j.Key, SeenAt: j.SeenAt, PullableAt: res.Pullable, Bytes: res.Bytes, Found: !res.Brought && j.Attempts == 0, Partial: res.Partial}
	content.Key.Tag, content.Key.Digest = "", res.Digest
	switch {
	case other:
		o.result, content.SeenAt = "superseded", time.Time{} // that event was about another image
	case res.Found:
		o.result = "found"
	case res.Partial != "":
		o.result = "partial"
	}
	if res.Refused != nil {
		o.level = slog.LevelWarn
		o.attrs = append(o.attrs, slog.Any("refused", res.Refused))
	}
	receipts := []Receipt{content}
	if j.Tag != "" {
		tag := content
		tag.Key, tag.Digest, tag.Found = j.Key, res.Digest, found
		receipts = append(receipts, tag)
	}
	var again time.Duration
	if early {
		again = settling / 10
	}
	if o.stored = w.o.Queue.done(j, again, receipts); o.stored == nil {
		o.stored = w.o.Queue.trimReceipts(ctx)
	}
	// How old history is says nothing of how long replication takes.
	if o.stored == nil && !content.SeenAt.IsZero() && !found && j.Lane != registry.LaneBackfill {
		lag := max(0, content.PullableAt.Sub(content.SeenAt))
		w.metrics.lag.WithLabelValues(j.Mirror, j.Destination).Observe(lag.Seconds())
		o.attrs = append(o.attrs, slog.Duration("lag", lag))
	}
	return o
}

func (w *Workers) report(ctx context.Context, j Job, o outcome, took time.Duration) {
	w.metrics.results.WithLabelValues(j.Mirror, j.Destination, o.result).Inc()
	attrs := []slog.Attr{slog.String("mirror", j.Mirror), slog.String("destination", j.Destination), slog.String("repo", j.Repo)}
	if j.Tag != "" {
		attrs = append(attrs, slog.String("tag", j.Tag))
	}
	attrs = append(attrs, o.attrs...)
	if o.stored != nil {
		o.level = slog.LevelError
		attrs = append(attrs, slog.Any("queueError", o.stored))
	}
	attrs = append(attrs, slog.String("result", o.result), slog.String("lane", j.Lane.String()), slog.Duration("duration", took))
	w.o.Logger.LogAttrs(ctx, o.level, "replicate", attrs...)
}
