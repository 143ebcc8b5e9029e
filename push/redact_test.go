package push

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func TestSecretsAreNotShown(t *testing.T) {
	t.Parallel()
	public, private, err := GenerateVAPID()
	if err != nil {
		t.Fatal(err)
	}
	v, err := NewVAPID("mailto:ops@example.com", public, private)
	if err != nil {
		t.Fatal(err)
	}
	sub := Subscription{Endpoint: "https://fcm.googleapis.com" + secretPath, P256dh: rfcP256dh, Auth: rfcAuth}
	n := announced
	n.OTP = "045435"
	m := Message{Payload: n.Payload(false), Topic: Topic(n.ChallengeID)}
	scalar, err := base64.RawURLEncoding.DecodeString(private)
	if err != nil {
		t.Fatal(err)
	}
	rawKey := strings.Trim(fmt.Sprint(scalar), "[]")
	secrets := []string{private, rawKey, fmt.Sprintf("%x", scalar), "secrettoken", rfcP256dh, rfcAuth, "act_token", "045435", "Sephora"}

	type holder struct {
		hidden VAPID
		Shown  []any
	}
	values := []any{sub, &sub, v, &v, n, &n, m, &m, []Subscription{sub}, map[string]VAPID{"k": v},
		holder{v, []any{sub, v, n, m}}, NewSender(v, mustPolicy(t, false)), *NewSender(v, mustPolicy(t, false))}
	for _, value := range values {
		var shown []string
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			shown = append(shown, fmt.Sprintf(verb, value))
		}
		var log bytes.Buffer
		slog.New(slog.NewTextHandler(&log, nil)).Info("text", "value", value)
		shown = append(shown, log.String())
		for _, text := range shown {
			for _, secret := range secrets {
				if strings.Contains(text, secret) {
					t.Errorf("%T shows %q in %s", value, secret, text)
				}
			}
		}
	}
	for _, value := range []any{v, n, m} {
		out, err := json.Marshal(map[string]any{"value": value})
		if err != nil || !strings.Contains(string(out), "[redacted]") {
			t.Errorf("%T as JSON: %s, %v", value, out, err)
		}
		for _, secret := range secrets {
			if strings.Contains(string(out), secret) {
				t.Errorf("%T shows %q in JSON", value, secret)
			}
		}
	}
	for _, value := range []fmt.GoStringer{sub, v, n, m} {
		if !strings.Contains(value.GoString(), "[redacted]") {
			t.Errorf("%T: %s", value, value.GoString())
		}
	}
}

func TestSubscriptionIsStoredWhole(t *testing.T) {
	t.Parallel()
	sub := Subscription{Endpoint: "https://fcm.googleapis.com/x", P256dh: rfcP256dh, Auth: rfcAuth}
	out, err := json.Marshal(sub)
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"endpoint":"https://fcm.googleapis.com/x","p256dh":"` + rfcP256dh + `","auth":"` + rfcAuth + `"}`; string(out) != want {
		t.Errorf("stored as %s", out)
	}
	var back Subscription
	if err := json.Unmarshal(out, &back); err != nil || back != sub {
		t.Errorf("read back: %v", err)
	}
}

func TestVerdictString(t *testing.T) {
	t.Parallel()
	for v, want := range map[Verdict]string{Delivered: "delivered", Gone: "gone", Retry: "retry", Fault: "fault", 9: "verdict 9"} {
		if v.String() != want {
			t.Errorf("%d is %q", int(v), v)
		}
	}
}
