package events_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/replicate/events"
)

const secret = "0123456789abcdef-token"

func tokenFile(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func webhook(t testing.TB, o events.WebhookOptions) *events.Webhook {
	t.Helper()
	if o.TokenFile == "" {
		o.TokenFile = tokenFile(t, secret+"\n")
	}
	h, err := events.NewWebhook(o)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// post sends body as an API destination does (facts of EventBridge: its headers, and the connection's).
func post(h http.Handler, header, value string, body []byte) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, "/events", bytes.NewReader(body))
	r.Header.Set("User-Agent", "Amazon/EventBridge/ApiDestinations")
	r.Header.Set("Content-Type", "application/json; charset=utf-8")
	r.Header.Set("Range", "bytes=0-1048575")
	if header != "" {
		r.Header.Set(header, value)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestWebhookToken(t *testing.T) {
	handled := 0
	h := webhook(t, events.WebhookOptions{Handle: func(context.Context, []registry.Change) error { handled++; return nil }})
	for _, tc := range []struct {
		header, value string
		want          int
	}{
		{"", "", http.StatusUnauthorized},
		{"Authorization", "", http.StatusUnauthorized},
		{"Authorization", "Bearer ", http.StatusUnauthorized},
		{"Authorization", "Bearer " + secret[:len(secret)-1], http.StatusUnauthorized},
		{"Authorization", "Bearer " + secret + "x", http.StatusUnauthorized},
		{"Authorization", "Basic " + secret, http.StatusUnauthorized},
		{"Authorization", secret, http.StatusUnauthorized},
		{"X-Api-Key", "wrong", http.StatusUnauthorized},
		{"X-Other", secret, http.StatusUnauthorized},
		{"Authorization", "Bearer " + secret, http.StatusAccepted},
		{"authorization", "bearer  " + secret, http.StatusAccepted},
		{"x-api-key", secret, http.StatusAccepted},
	} {
		before := handled
		w := post(h, tc.header, tc.value, sample(t, "push"))
		if w.Code != tc.want || (handled > before) != (tc.want == http.StatusAccepted) {
			t.Errorf("%s: %q: %d, handled %d", tc.header, tc.value, w.Code, handled-before)
		}
		if strings.Contains(w.Body.String(), secret) {
			t.Error("the answer holds the token")
		}
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/events", nil))
	if w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") != http.MethodPost {
		t.Errorf("GET: %d, allow %q", w.Code, w.Header().Get("Allow"))
	}
}

// A rotated token counts at once; a file that cannot be used does not lock the senders out.
func TestWebhookTokenChanges(t *testing.T) {
	path := tokenFile(t, secret)
	h := webhook(t, events.WebhookOptions{TokenFile: path, Handle: func(context.Context, []registry.Change) error { return nil }})
	const next = "another-token-of-some-length"
	for i, tc := range []struct{ write, right, wrong string }{
		{"", secret, next},
		{next + "\n", next, secret},
		{"short", next, "short"},
		{strings.Repeat("x", 5<<10), next, secret},
		{secret + "\nand a second line", secret, next},
	} {
		if tc.write != "" {
			if err := os.WriteFile(path, []byte(tc.write), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		for token, want := range map[string]int{tc.right: http.StatusAccepted, tc.wrong: http.StatusUnauthorized} {
			if w := post(h, "X-Api-Key", token, sample(t, "push")); w.Code != want {
				t.Errorf("step %d: %q: %d, want %d", i, token, w.Code, want)
			}
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if w := post(h, "X-Api-Key", secret, sample(t, "push")); w.Code != http.StatusAccepted {
		t.Errorf("without the file: %d", w.Code)
	}
	for name, path := range map[string]string{"absent": path, "short": tokenFile(t, "short"), "empty": tokenFile(t, "")} {
		if _, err := events.NewWebhook(events.WebhookOptions{TokenFile: path}); registry.ClassOf(err) != registry.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Each message has one outcome, and what cannot be used is kept before it is acknowledged.
func TestWebhookOutcomes(t *testing.T) {
	var handled []registry.Change
	var dead []string
	var fail error
	h := webhook(t, events.WebhookOptions{
		Handle: func(_ context.Context, c []registry.Change) error {
			if c[0].Registry == "registry.example.com:5000" {
				return fmt.Errorf("not mine: %w", events.ErrForeign)
			}
			if fail == nil && c[0].Op == registry.Delete {
				return fmt.Errorf("deletes: %w", events.ErrUnwanted)
			}
			handled = append(handled, c...)
			return fail
		},
		DeadLetter: func(_ context.Context, body []byte, reason error) error {
			dead = append(dead, fmt.Sprintf("%d %v", len(body), reason))
			return fail
		}})
	large := append(sample(t, "push"), bytes.Repeat([]byte(" "), 2*events.MaxSize)...)
	for _, tc := range []struct {
		name string
		body []byte
		fail error
		want int
	}{
		{"push", sample(t, "push"), nil, http.StatusAccepted},
		{"again", sample(t, "push"), nil, http.StatusAccepted},
		{"not written down", sample(t, "push"), errors.New("disk full"), http.StatusServiceUnavailable},
		{"unwanted", sample(t, "delete"), nil, http.StatusAccepted},
		{"ignored", sample(t, "scan"), nil, http.StatusAccepted},
		{"ignored on a full disk", sample(t, "scan"), errors.New("disk full"), http.StatusAccepted},
		{"malformed", []byte("{"), nil, http.StatusAccepted},
		{"malformed, not written down", []byte("{"), errors.New("disk full"), http.StatusServiceUnavailable},
		{"unknown", sample(t, "ec2"), nil, http.StatusAccepted},
		{"foreign", sample(t, "notification"), nil, http.StatusAccepted},
		{"too large", large, nil, http.StatusAccepted},
		{"nothing", nil, nil, http.StatusAccepted},
	} {
		fail = tc.fail
		w := post(h, "X-Api-Key", secret, tc.body)
		if w.Code != tc.want || (w.Header().Get("Retry-After") != "") != (tc.want == http.StatusServiceUnavailable) {
			t.Errorf("%s: %d %v", tc.name, w.Code, w.Header())
		}
	}
	if len(handled) != 3 || len(dead) != 6 {
		t.Errorf("%d handled, dead: %q", len(handled), dead)
	}
	if want := fmt.Sprint(events.MaxSize+1) + " "; !strings.HasPrefix(dead[4], want) {
		t.Errorf("too large: %s", dead[4])
	}
	want := map[string]float64{"handled": 2, "failed": 2, "ignored": 2, "unwanted": 1, "malformed": 3, "unknown": 1, "foreign": 1}
	if d := cmp.Diff(want, gathered(t, h.Collectors(), "ecr_mirror_event_messages_total")); d != "" {
		t.Errorf("counters (-want +got):\n%s", d)
	}
}

// What of an envelope can be used is used, and the rest of it is not lost.
func TestPartlyBad(t *testing.T) {
	handled, dead := 0, 0
	h := webhook(t, events.WebhookOptions{
		Handle:     func(_ context.Context, c []registry.Change) error { handled += len(c); return events.ErrUnwanted },
		DeadLetter: func(context.Context, []byte, error) error { dead++; return nil }})
	if w := post(h, "X-Api-Key", secret, sample(t, "notification-partly-bad")); w.Code != http.StatusAccepted || handled != 1 || dead != 1 {
		t.Errorf("%d, %d handled, %d dead", w.Code, handled, dead)
	}
}

// A disk that hangs does not hold the sender: it is told in time to come again, and too many of them at once.
func TestWebhookAnswersInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		started := 0
		h := webhook(t, events.WebhookOptions{Handle: func(context.Context, []registry.Change) error {
			started++
			<-release
			return nil
		}})
		push := sample(t, "push")
		begin := time.Now()
		codes := make(chan int, 100)
		for range 64 {
			go func() { codes <- post(h, "X-Api-Key", secret, push).Code }()
			synctest.Wait()
		}
		if w := post(h, "X-Api-Key", secret, push); w.Code != http.StatusServiceUnavailable || time.Since(begin) != 0 {
			t.Errorf("one too many: %d after %v", w.Code, time.Since(begin))
		}
		for range 64 {
			if code := <-codes; code != http.StatusServiceUnavailable {
				t.Errorf("answered %d", code)
			}
		}
		if d := time.Since(begin); d > 5*time.Second {
			t.Errorf("answered after %v", d)
		}
		close(release)
		synctest.Wait()
		if w := post(h, "X-Api-Key", secret, push); w.Code != http.StatusAccepted || started != 65 {
			t.Errorf("afterwards: %d, %d started", w.Code, started)
		}
	})
}

// gathered returns the counters of one metric by outcome or call.
func gathered(t *testing.T, c []prometheus.Collector, name string) map[string]float64 {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(c...)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		if f.GetName() == name {
			for _, m := range f.GetMetric() {
				for _, l := range m.GetLabel() {
					if (l.GetName() == "outcome" || l.GetName() == "call") && m.GetCounter().GetValue() > 0 {
						got[l.GetValue()] = m.GetCounter().GetValue()
					}
				}
			}
		}
	}
	return got
}

func FuzzWebhook(f *testing.F) {
	for _, name := range []string{"push", "sns", "scan", "notification-batch", "ec2"} {
		f.Add(sample(f, name))
	}
	f.Add([]byte(`{"events":[{}]}`))
	handled, dead := 0, 0
	h := webhook(f, events.WebhookOptions{
		Handle:     func(context.Context, []registry.Change) error { handled++; return nil },
		DeadLetter: func(context.Context, []byte, error) error { dead++; return nil }})
	f.Fuzz(func(t *testing.T, body []byte) {
		handled, dead = 0, 0
		w := post(h, "X-Api-Key", secret, body)
		_, err := events.Decode(body)
		if w.Code != http.StatusAccepted || handled+dead == 0 && !errors.Is(err, events.ErrIgnored) {
			t.Fatalf("%d, %d handled, %d dead", w.Code, handled, dead)
		}
	})
}
