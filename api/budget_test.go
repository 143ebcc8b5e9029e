package api

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"approvalrelay/crypto"
	"approvalrelay/relay"
	"approvalrelay/relay/storetest/budget"
)

// allocations of one operation; see package budget.
var allocations = map[string]float64{
	"an event's webhook":     123, // from the handler to the store
	"a challenge's webhook":  134,
	"an event of the stream": 17,
}

// taker is a store that takes every event.
type taker struct {
	relay.Store
	root crypto.Root
}

func (taker) Now() time.Time                              { return time.Now() }
func (taker) Partitions() int                             { return 16 }
func (s taker) Root(context.Context) (crypto.Root, error) { return s.root, nil }
func (taker) Arrive(_ context.Context, a relay.Arrival) (relay.Arrived, error) {
	return relay.Arrived{EventID: a.Event.ID, UserID: a.Event.UserID}, nil
}

// client takes an answer, and any number of them.
type client struct {
	header http.Header
	status int
}

func (c *client) Header() http.Header         { return c.header }
func (c *client) WriteHeader(status int)      { c.status = status }
func (c *client) Write(b []byte) (int, error) { return len(b), nil }

// connection takes what is written to it.
type connection struct{ net.Conn }

func (connection) Write(b []byte) (int, error)      { return len(b), nil }
func (connection) SetWriteDeadline(time.Time) error { return nil }

func TestBudget(t *testing.T) {
	root, err := crypto.NewRoot(crypto.GenerateKey())
	must(t, err)
	ring := newRing(t, "0123456789abcdef")
	log := slog.New(slog.NewJSONHandler(io.Discard, nil))
	s := newServer(t, newService(t, taker{root: root}, ring, log), &clock{}, log)
	sender := &bed{t: t, ring: ring}
	for operation, typ := range map[string]string{"an event's webhook": "CARD_STATUS_CHANGE", "a challenge's webhook": "CARD_3DS"} {
		body := sender.envelope(typ, payload(nil))
		budget.Allocations(t, allocations, operation, func() {
			w := &client{header: http.Header{}}
			s.Public().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "POST", "/webhooks/acme", strings.NewReader(body)))
			if w.status != http.StatusOK {
				t.Fatalf("status %d", w.status)
			}
		})
	}

	st := stream{conn: connection{}}
	ch := relay.Challenge{ID: "chl_01J8ZQ5X4N8K3T0V7B2M6C9R1D0a", UserID: "12345", Merchant: "acme", Kind: relay.ThreeDS, Method: relay.MethodApprove, Status: relay.Pending,
		CardID: "67890", Last4: "4242", Payee: "Sephora Digital", Country: "FR", Amount: "100.20", Currency: "USD", CreatedAt: time.Now(), ExpiresAt: time.Now().Add(time.Minute)}
	budget.Allocations(t, allocations, "an event of the stream", func() {
		if err := st.event("challenge", ch.View()); err != nil {
			t.Fatal(err)
		}
	})
}
