package sim

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The example that the Standard Webhooks libraries share.
const (
	vectorSecret    = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	vectorID        = "msg_p5jXN8AQM9LWM0D4loKWxJek"
	vectorTime      = 1614265330
	vectorBody      = `{"test": 2432232314}`
	vectorSignature = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
	otherSecret     = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
)

func sign(secret, id, timestamp, body string) string {
	key, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(id + "." + timestamp + "." + body))
	return "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

func at(seconds int64) func() time.Time { return func() time.Time { return time.Unix(seconds, 0) } }

func vectorDelivery() *http.Request {
	r := httptest.NewRequest(http.MethodPost, "http://downstream/hooks", strings.NewReader(vectorBody))
	r.Header.Set("webhook-id", vectorID)
	r.Header.Set("webhook-timestamp", strconv.Itoa(vectorTime))
	r.Header.Set("webhook-signature", vectorSignature)
	r.Header.Set("X-Relay-Event-Type", "CARD_APPLY_RESULT")
	r.Header.Set("X-Relay-Attempt", "2")
	return r
}

func TestDownstreamVerifies(t *testing.T) {
	t.Parallel()
	own := func(secrets ...string) string { // as signed by the holder of these secrets
		var signatures []string
		for _, secret := range secrets {
			signatures = append(signatures, sign(secret, vectorID, strconv.Itoa(vectorTime), vectorBody))
		}
		return strings.Join(signatures, " ")
	}
	header := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(name, value) }
	}
	resigned := func(body string) func(*http.Request) {
		return func(r *http.Request) {
			r.Body = io.NopCloser(strings.NewReader(body))
			r.Header.Set("webhook-signature", sign(vectorSecret, vectorID, strconv.Itoa(vectorTime), body))
		}
	}
	for name, c := range map[string]struct {
		secrets    []string
		now        int64
		change     func(*http.Request)
		status     int
		signatures int
	}{
		"the vector":              {[]string{vectorSecret}, vectorTime, func(*http.Request) {}, 200, 1},
		"five minutes later":      {[]string{vectorSecret}, vectorTime + 300, func(*http.Request) {}, 200, 1},
		"over five minutes later": {[]string{vectorSecret}, vectorTime + 301, func(*http.Request) {}, 401, 0},
		"over five minutes early": {[]string{vectorSecret}, vectorTime - 301, func(*http.Request) {}, 401, 0},
		"one of two secrets":      {[]string{otherSecret, vectorSecret}, vectorTime, func(*http.Request) {}, 200, 1},
		"both of two secrets":     {[]string{otherSecret, vectorSecret}, vectorTime, header("webhook-signature", own(vectorSecret, otherSecret)), 200, 2},
		"one of two signatures":   {[]string{vectorSecret}, vectorTime, header("webhook-signature", own(otherSecret, vectorSecret)), 200, 1},
		"same signature twice":    {[]string{vectorSecret}, vectorTime, header("webhook-signature", own(vectorSecret, vectorSecret)), 200, 1},
		"another secret":          {[]string{otherSecret}, vectorTime, func(*http.Request) {}, 401, 0},
		"no secret":               {nil, vectorTime, func(*http.Request) {}, 401, 0},
		"no signature":            {[]string{vectorSecret}, vectorTime, header("webhook-signature", ""), 401, 0},
		"asymmetric version":      {[]string{vectorSecret}, vectorTime, header("webhook-signature", "v1a"+vectorSignature[2:]), 401, 0},
		"no version":              {[]string{vectorSecret}, vectorTime, header("webhook-signature", vectorSignature[3:]), 401, 0},
		"other id":                {[]string{vectorSecret}, vectorTime, header("webhook-id", "msg_other"), 401, 0},
		"no id":                   {[]string{vectorSecret}, vectorTime, header("webhook-id", ""), 401, 0},
		"other time":              {[]string{vectorSecret}, vectorTime, header("webhook-timestamp", strconv.Itoa(vectorTime+1)), 401, 0},
		"no time":                 {[]string{vectorSecret}, vectorTime, header("webhook-timestamp", ""), 401, 0},
		"no type":                 {[]string{vectorSecret}, vectorTime, header("X-Relay-Event-Type", ""), 400, 1},
		"no attempt":              {[]string{vectorSecret}, vectorTime, header("X-Relay-Attempt", ""), 400, 1},
		"attempt 0":               {[]string{vectorSecret}, vectorTime, header("X-Relay-Attempt", "0"), 400, 1},
		"own id in the body":      {[]string{vectorSecret}, vectorTime, resigned(`{"id":"` + vectorID + `","type":"CARD_APPLY_RESULT"}`), 200, 1},
		"other id in the body":    {[]string{vectorSecret}, vectorTime, resigned(`{"id":"evt_2"}`), 400, 1},
		"other type in the body":  {[]string{vectorSecret}, vectorTime, resigned(`{"type":"CARD_3DS"}`), 400, 1},
		"body not JSON":           {[]string{vectorSecret}, vectorTime, resigned(`hello`), 400, 1},
	} {
		d := NewDownstream(c.secrets...)
		d.now = at(c.now)
		request := vectorDelivery()
		c.change(request)
		answer := httptest.NewRecorder()
		d.ServeHTTP(answer, request)
		got := d.Deliveries()[0]
		if answer.Code != c.status || got.Status != c.status || got.Signatures != c.signatures {
			t.Errorf("%s: answered %d, %d signatures, fault %q", name, answer.Code, got.Signatures, got.Fault)
		}
		if (got.Fault != "") != (c.status != 200) || d.Faults() != min(1, c.status-200) {
			t.Errorf("%s: answered %d with fault %q, %d faults", name, c.status, got.Fault, d.Faults())
		}
	}
}

func TestDownstreamRecords(t *testing.T) {
	t.Parallel()
	d := NewDownstream(vectorSecret)
	d.now = at(vectorTime)
	d.Behave(func(n int, id string) Behaviour {
		if n == 1 && id == vectorID {
			return Behaviour{Status: 429, RetryAfter: "3"}
		}
		return Behaviour{}
	})
	for n, want := range []int{429, 200} {
		answer := httptest.NewRecorder()
		d.ServeHTTP(answer, vectorDelivery())
		got := d.Deliveries()[n]
		if answer.Code != want || got.Fault != "" || got.ID != vectorID || got.Type != "CARD_APPLY_RESULT" || got.Attempt != 2 ||
			string(got.Body) != vectorBody || got.JSON["test"] == nil || got.Headers.Get("webhook-signature") != vectorSignature {
			t.Errorf("answered %d, recorded %+v", answer.Code, got)
		}
	}
}

func TestDownstreamRefusesBrokenSecrets(t *testing.T) {
	t.Parallel()
	for _, secret := range []string{"whsec_", "whsec_!", "", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS"} {
		mustPanic(t, secret, func() { NewDownstream(secret) })
	}
}
