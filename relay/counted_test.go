package relay_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"approvalrelay/relay"
)

// counting is a harness whose metrics can be read.
func counting(t *testing.T, change func(*relay.Options)) (*harness, func(name string, labels ...string) float64) {
	r := prometheus.NewRegistry()
	h := newHarness(t, func(o *relay.Options) {
		o.Metrics = r
		if change != nil {
			change(o)
		}
	})
	return h, func(name string, labels ...string) float64 {
		t.Helper()
		families, err := r.Gather()
		if err != nil {
			t.Fatal(err)
		}
		return count(families, name, labels...)
	}
}

// count adds up a counter, or how often a histogram observed something, over all
// series that have the labels, as "name=value".
func count(families []*dto.MetricFamily, name string, labels ...string) (sum float64) {
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var has []string
			for _, l := range m.GetLabel() {
				has = append(has, l.GetName()+"="+l.GetValue())
			}
			all := "," + strings.Join(has, ",") + ","
			fits := f.GetName() == name
			for _, l := range labels {
				fits = fits && strings.Contains(all, ","+l+",")
			}
			if fits {
				sum += m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	return sum
}

// A push that has become pointless before it was sent is no attempt, and no dead
// letter.
func TestDroppedPushIsNotCounted(t *testing.T) {
	h, get := counting(t, nil)
	h.device(anna, 1)
	before := get("relay_delivery_attempts_total", "kind=push")
	h.store.holding(relay.KindPush)
	id := h.accepted("CARD_3DS", purchase("c-1"))
	h.store.awaitSettled(t, relay.KindAnnounce, 1)
	if _, err := h.Cancel(h.ctx, id); err != nil {
		t.Fatal(err)
	}
	h.store.release()
	h.quiet()
	ended := len(h.pusher.to(1)) // word that it ended, if any
	if got := get("relay_delivery_attempts_total", "kind=push") - before; got != float64(ended) {
		t.Errorf("%g attempts are counted, %d were made", got, ended)
	}
	if got := get("relay_dead_letters_total", "kind=push"); got != 0 {
		t.Errorf("%g dead letters are counted, there is none", got)
	}
}

// What is put back because its target is paused was not tried.
func TestParkedIsNotAnAttempt(t *testing.T) {
	h, get := counting(t, withTargets(target("all", "*")))
	h.downstream.will(func(forwarded) relay.Outcome {
		return relay.Outcome{Verdict: relay.TryAgain, Attempt: relay.Attempt{StatusCode: 500, Latency: time.Millisecond}}
	})
	h.receive("CARD_STATUS_CHANGE", payload("card_id", "c-1", "status", "ACTIVE"))
	if err := h.PauseTarget(h.ctx, "all"); err != nil {
		t.Fatal(err)
	}
	h.downstream.will(func(forwarded) relay.Outcome {
		return relay.Outcome{Verdict: relay.Gone, Attempt: relay.Attempt{StatusCode: 410, Latency: time.Millisecond}}
	})
	h.pass(7 * time.Second)
	tries := float64(len(h.downstream.all()))
	if got := get("relay_delivery_attempts_total", "kind=forward"); got != tries {
		t.Errorf("%g attempts are counted, %g were made", got, tries)
	}
	if got := get("relay_forward_duration_seconds", "target=all"); got != tries {
		t.Errorf("%g answers are measured, %g were given", got, tries)
	}
}

// A confirm that runs out of time is given up, not tried.
func TestLateConfirmIsNotAnAttempt(t *testing.T) {
	h, get := counting(t, nil)
	h.issuer.will(func(asked) relay.Outcome {
		return relay.Outcome{Verdict: relay.TryAgain, Attempt: relay.Attempt{StatusCode: 503, Latency: time.Millisecond}}
	})
	id := h.receive("CARD_3DS", purchase("c-1"))
	ctx, leave := context.WithTimeout(h.ctx, 100*time.Millisecond) // the outcome is not waited for
	defer leave()
	if _, err := h.Decide(ctx, anna, id, approve()); err != nil {
		t.Fatal(err)
	}
	h.quiet()
	h.pass(301 * time.Second)
	h.wantStatus(id, relay.Failed)
	tries := float64(len(h.issuer.confirms(id)))
	if got := get("relay_delivery_attempts_total", "kind=confirm"); got != tries {
		t.Errorf("%g attempts are counted, %g were made", got, tries)
	}
	if got := get("relay_step_duration_seconds", "step=confirm"); got != tries {
		t.Errorf("%g answers are measured, %g were given", got, tries)
	}
}

// The hand-over is measured once for each delivery, not of replays: how long a
// dead letter lay there is nobody's delay.
func TestReplayIsNoHandover(t *testing.T) {
	h, get := counting(t, withTargets(target("all", "*")))
	h.downstream.will(func(forwarded) relay.Outcome {
		return relay.Outcome{Verdict: relay.Faulty, Attempt: relay.Attempt{StatusCode: 400, Latency: time.Millisecond}}
	})
	h.receive("CARD_STATUS_CHANGE", payload("card_id", "c-1", "status", "ACTIVE"))
	before := get("relay_step_duration_seconds", "step=handover")
	h.pass(time.Hour)
	if n, err := h.ReplayDead(h.ctx, ""); err != nil || n != 1 {
		t.Fatalf("replayed %d, %v", n, err)
	}
	h.quiet()
	if got := get("relay_step_duration_seconds", "step=handover") - before; got != 0 {
		t.Errorf("%g more hand-overs are measured", got)
	}
}

// What runs again out of quarantine is no webhook of the issuer.
func TestReplayIsNoWebhook(t *testing.T) {
	h, get := counting(t, nil)
	r, err := h.send("acme", "CARD_3DS", purchase("c-1", "amount", nil, "sum", "50.00"))
	if err != nil || r.Status != relay.Quarantined {
		t.Fatalf("%+v, %v", r, err)
	}
	m := h.Merchants["acme"]
	m.Mapping = m.Mapping.With(map[string][]string{"amount": {"sum"}})
	if again, err := h.ReplayEvent(h.ctx, r.EventID); err != nil || again.Status != relay.Accepted {
		t.Fatalf("%+v, %v", again, err)
	}
	h.quiet()
	if got := get("relay_webhooks_total"); got != 1 {
		t.Errorf("%g webhooks are counted, one came", got)
	}
}
