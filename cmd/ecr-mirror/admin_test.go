package main

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// A reader of a plan that stops reading is cut and the next has its turn; one that waits long for the next line is not.
func TestSlowReaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, page := newPipes(), newSyncPage(planner{})
		var ended error
		stop := serving(l, adminHandler(prometheus.NewRegistry(), nil, map[string]http.Handler{
			"GET /endless": page.lines(func(_ context.Context, _ bool, line func(planLine) error) (int, error) {
				for ended = nil; ended == nil; {
					ended = line(planLine{})
				}
				return 0, ended
			}),
			"GET /silent": page.lines(func(_ context.Context, _ bool, line func(planLine) error) (int, error) {
				time.Sleep(5 * answerTime)
				err := line(planLine{})
				time.Sleep(5 * answerTime)
				return 7, err
			}),
		}), connections{total: 10})

		stalled := l.dial()
		_, err := io.WriteString(stalled, "GET /endless HTTP/1.1\r\nHost: m\r\n\r\n")
		must(t, err)
		res, err := http.ReadResponse(bufio.NewReader(stalled), nil) // and nothing more
		must(t, err)
		if res.StatusCode != http.StatusOK {
			t.Fatal(res.Status)
		}
		time.Sleep(answerTime - time.Second)
		if len(page.slot) != 1 {
			t.Error("cut early")
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if len(page.slot) != 0 {
			t.Error("the slot is still taken")
		}
		must(t, stalled.Close())
		synctest.Wait()
		if ended == nil {
			t.Error("the plan went on")
		}

		patient := l.dial()
		_, err = io.WriteString(patient, "GET /silent HTTP/1.1\r\nHost: m\r\nConnection: close\r\n\r\n")
		must(t, err)
		res, err = http.ReadResponse(bufio.NewReader(patient), nil)
		must(t, err)
		body, err := io.ReadAll(res.Body)
		if want := "{}\n{\"end\":{\"jobs\":7}}\n"; err != nil || string(body) != want {
			t.Errorf("%q, %v; want %q", body, err, want)
		}
		must(t, patient.Close())
		must(t, stop())
	})
}
