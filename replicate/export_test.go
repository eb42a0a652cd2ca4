package replicate

import "context"

// LookedAt returns how many keys a page of images looks at.
func (q *Queue) LookedAt(ctx context.Context, o ImageQuery) (images, keys int, err error) {
	rows, _, keys, err := q.images(ctx, o)
	return len(rows), keys, err
}
