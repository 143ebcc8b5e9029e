package push

import (
	"net/http"
	"testing"
	"time"

	"approvalrelay/relay/storetest/budget"
)

// allocations of one operation; see package budget.
var allocations = map[string]float64{
	"a push": 293, // payload, encryption, signature, request
}

func TestBudget(t *testing.T) {
	s := newTestSender(t, newTestVAPID(t), mustPolicy(t, false))
	s.client.Transport = roundTripper(func(*http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: http.StatusCreated, Body: http.NoBody}, nil
	})
	sub := newDevice(t).subscription("https://fcm.googleapis.com" + secretPath)
	budget.Allocations(t, allocations, "a push", func() {
		m := Message{Payload: announced.Payload(false), TTL: 5 * time.Minute, Urgency: "high", Topic: Topic("chl_01J")}
		if r := s.Send(t.Context(), sub, m); r.Verdict != Delivered {
			t.Fatal(r.Err)
		}
	})
}
