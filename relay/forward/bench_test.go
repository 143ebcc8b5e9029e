package forward

import (
	"io"
	"net/http"
	"testing"

	"approvalrelay/relay"
)

// noNetwork takes every request.
type noNetwork struct{}

func (noNetwork) RoundTrip(r *http.Request) (*http.Response, error) {
	_, err := io.Copy(io.Discard, r.Body)
	return &http.Response{StatusCode: http.StatusNoContent, Body: http.NoBody, Request: r}, err
}

// BenchmarkForward is the cost of a forward without network: body, signatures,
// request, record.
func BenchmarkForward(b *testing.B) {
	for name, secrets := range map[string][]string{"one secret": {signingA}, "two secrets": {signingA, signingB}} {
		b.Run(name, func(b *testing.B) {
			d := downstream(b, func(t *Target) { t.Secrets = secrets }, "bench://core.example/hooks")
			d.targets["core"].transport.RegisterProtocol("bench", noNetwork{})
			m := message()
			m.Data = []byte(`{"template_id":12,"user_id":12345,"card_id":67890,"transaction_id":"tx-4868798","receive_amount":100.20,"status":"SUCCESS","currency":"USD","description":"top up from the app","occur_time":1764581400005}`)
			b.ReportAllocs()
			for b.Loop() {
				if o := d.Forward(b.Context(), "core", m); o.Verdict != relay.Delivered {
					b.Fatalf("%+v", o)
				}
			}
		})
	}
}
