package main

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestStagesStopInOrder(t *testing.T) {
	boom := errors.New("boom")
	for name, test := range map[string]struct {
		fail  string // the part that fails by itself after a second
		err   error
		order []string
	}{
		"asked to":       {order: []string{"front", "workers", "store"}},
		"front fails":    {fail: "front", err: boom, order: []string{"front", "workers", "store"}},
		"store fails":    {fail: "store", err: boom, order: []string{"store", "front", "workers"}},
		"a part returns": {fail: "workers", order: []string{"workers", "front", "store"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var mu sync.Mutex
				var ended []string
				stage := func(name string) []part {
					return []part{{name, func(ctx context.Context) error {
						defer func() { mu.Lock(); ended = append(ended, name); mu.Unlock() }()
						if name == test.fail {
							time.Sleep(time.Second)
							return test.err
						}
						<-ctx.Done()
						time.Sleep(time.Second) // draining
						return ctx.Err()
					}}}
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				err := runStages(ctx, stage("front"), stage("workers"), stage("store"))
				if (err == nil) != (test.fail == "") || test.err != nil && !errors.Is(err, test.err) {
					t.Errorf("got error %v", err)
				}
				if !slices.Equal(ended, test.order) {
					t.Errorf("ended in order %v, want %v", ended, test.order)
				}
			})
		})
	}
}
