package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"syscall"
	"time"
)

// maxAdminAnswer bounds an answer in bytes: a page of a thousand entries with their errors is a few MiB.
const maxAdminAnswer = 64 << 20

// errNotServing means that nothing listens there: no mirror runs.
var errNotServing = errors.New("no mirror is running")

// decode does a request and decodes its answer into out. errNotServing comes wrapped.
func (c *adminClient) decode(ctx context.Context, method, path string, out any) error {
	body, err := c.do(ctx, method, path)
	if errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("%w: %w", errNotServing, err)
	}
	if err != nil {
		return err
	}
	defer body.Close()
	if err := json.NewDecoder(io.LimitReader(body, maxAdminAnswer)).Decode(out); err != nil {
		return fmt.Errorf("the mirror's answer: %w", err)
	}
	return nil
}

// sleep waits for d, or until ctx ends: false.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
