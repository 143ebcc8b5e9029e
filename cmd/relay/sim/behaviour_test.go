package sim

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// The sender sees the status and knows how much is missing, and the record says
// what was seen. A script never makes a refused message look taken.
func TestHalfAnAnswer(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		behaviour Behaviour
		signed    bool
		status    int
	}{
		"success": {Behaviour{Half: true}, true, 200},
		"failure": {Behaviour{Half: true, Status: 503, RetryAfter: "7"}, true, 503},
		"refused": {Behaviour{Half: true}, false, 401},
	} {
		d := NewDownstream(vectorSecret)
		d.now = at(vectorTime)
		d.Behave(func(n int, _ string) Behaviour {
			if n > 1 {
				return Behaviour{}
			}
			return c.behaviour
		})
		server := httptest.NewServer(d)
		defer server.Close()
		post := func() (*http.Response, string, error) {
			request := vectorDelivery()
			if !c.signed {
				request.Header.Del("webhook-signature")
			}
			request.RequestURI = ""
			request.URL.Scheme, request.URL.Host = "http", strings.TrimPrefix(server.URL, "http://")
			response, err := server.Client().Do(request)
			if err != nil {
				t.Fatalf("%s: no status: %v", name, err)
			}
			defer response.Body.Close()
			body, err := io.ReadAll(response.Body)
			return response, string(body), err
		}
		response, body, err := post()
		if response.StatusCode != c.status || response.Header.Get("Retry-After") != c.behaviour.RetryAfter {
			t.Errorf("%s: status %d, Retry-After %q", name, response.StatusCode, response.Header.Get("Retry-After"))
		}
		if !errors.Is(err, io.ErrUnexpectedEOF) || body == "" || int64(len(body)) >= response.ContentLength {
			t.Errorf("%s: %d of %d bytes, then %v", name, len(body), response.ContentLength, err)
		}
		if got := d.Deliveries()[0].Status; got != c.status {
			t.Errorf("%s: recorded as answered with %d", name, got)
		}
		if _, _, err := post(); err != nil {
			t.Errorf("%s: the answer after it: %v", name, err)
		}
	}
}
