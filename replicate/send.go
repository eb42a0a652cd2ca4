package replicate

import (
	"cmp"
	"context"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// What the destination lacks is sent once, however many copies need it at a time (claims.go).

// sendTree sends the blobs and the first n levels.
func (t *transfer) sendTree(ctx context.Context, tr *tree, n int) error {
	if err := t.send(ctx, tr.blobs, t.putBlob); err != nil {
		return err
	}
	for _, level := range tr.levels[:n] {
		err := t.send(ctx, level, func(ctx context.Context, o registry.Object) error {
			return t.putManifest(ctx, "", "", tr.bodies[o], false)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// send makes objects, none of which needs another, exist at the destination, put sending those that it lacks. What another
// copy is sending is waited for, and sent here if the other fails.
func (t *transfer) send(ctx context.Context, objects []registry.Object, put func(context.Context, registry.Object) error) error {
	for len(objects) > 0 {
		mine, theirs := t.c.claims.take(t.im.Destination.Name, objects)
		if err := t.sendMine(ctx, mine, put); err != nil {
			return err
		}
		objects = slices.DeleteFunc(slices.Clone(objects), func(o registry.Object) bool { return theirs[o] == nil })
		for i := 0; i < len(objects); {
			sent, err := theirs[objects[i]].wait(ctx, t.progress)
			if err != nil {
				return err
			}
			if sent {
				objects = slices.Delete(objects, i, i+1)
			} else {
				i++
			}
		}
	}
	return nil
}

func (t *transfer) sendMine(ctx context.Context, mine []registry.Object, put func(context.Context, registry.Object) error) error {
	giveUp := func(o registry.Object, sent bool) { t.c.claims.giveUp(t.im.Destination.Name, o, sent) }
	missing, err := t.missing(ctx, mine) // asked under the claim: another copy may have sent it a moment ago
	lacks := make(map[registry.Object]bool, len(missing))
	for _, o := range missing {
		lacks[o] = true
	}
	for _, o := range mine {
		if err != nil || !lacks[o] {
			giveUp(o, err == nil)
		}
	}
	if err != nil {
		return err
	}
	for o := range lacks {
		t.planned(t.size(o))
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(cmp.Or(t.c.Parallel, 3))
	for _, o := range mine {
		if !lacks[o] {
			continue
		}
		g.Go(func() error {
			err := put(ctx, o)
			giveUp(o, err == nil)
			return err
		})
	}
	return g.Wait()
}

// size is that of a blob, as a manifest says; 0 of manifests.
func (t *transfer) size(o registry.Object) int64 {
	n, _ := t.sizes.Load(o.Digest)
	size, _ := n.(int64)
	return size
}

// missing returns what of objects the destination lacks, in their order, creating the repository if that is what it lacks.
func (t *transfer) missing(ctx context.Context, objects []registry.Object) (missing []registry.Object, err error) {
	if len(objects) == 0 {
		return nil, nil
	}
	err = t.atDestination(ctx, func() error {
		missing, err = t.im.Destination.Writer.Missing(ctx, t.repo, objects)
		return err
	})
	return missing, err
}
