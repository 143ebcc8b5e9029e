package api

import (
	"strconv"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"
)

const endpoint = "https://fcm.googleapis.com/fcm/send/very-secret-path"

func TestSubscriptionLife(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	if got := string(b.call(request{method: "GET", path: "/v1/push/key"}).status(200).Body); got != `{"public_key":"`+testVAPID+`"}` {
		t.Errorf("%s", got)
	}
	sub := subscription(t, endpoint)
	sub["label"], sub["future"] = "My phone 📱", true
	created := b.post("/v1/push/subscriptions", asJSON(t, sub)).status(201)
	v := decodeAs[subscriptionView](created)
	if v.Status != "pending" || *v.Label != "My phone 📱" || v.Host != "fcm.googleapis.com" || v.CreatedAt.IsZero() {
		t.Errorf("%s", created.Body)
	}
	again := decodeAs[subscriptionView](b.post("/v1/push/subscriptions", asJSON(t, sub)).status(200))
	if again.ID != v.ID {
		t.Errorf("the same endpoint got %s and %s", v.ID, again.ID)
	}
	path := "/v1/push/subscriptions/" + v.ID
	code := b.pushed(func(p pushed) bool { return p.Activation.ID == v.ID }).Activation.Code
	b.post(path+"/activate", `{"code":"WRONG"}`).problem(409, "wrong_code")
	stranger := b.token(jwt.MapClaims{"sub": "666"})
	b.call(request{method: "POST", path: path + "/activate", token: stranger, body: asJSON(t, map[string]string{"code": code})}).problem(404, "not_found")
	b.call(request{method: "DELETE", path: path, token: stranger}).problem(404, "not_found")
	b.call(request{method: "POST", path: path + "/test", token: stranger}).problem(404, "not_found")
	if a := b.post(path+"/activate", asJSON(t, map[string]string{"code": code})).status(204); len(a.Body) != 0 {
		t.Errorf("%s", a.Body)
	}
	l := decodeAs[list[subscriptionView]](b.get("/v1/push/subscriptions").status(200))
	if len(l.Data) != 1 || l.Data[0].Status != "active" || l.Next != nil {
		t.Errorf("%+v", l)
	}
	if got := string(b.post(path+"/test", "").status(202).Body); got != `{"status":"accepted"}` {
		t.Errorf("%s", got)
	}
	b.pushed(func(p pushed) bool { return p.To.Endpoint == endpoint && p.Activation.ID == "" })
	b.call(request{method: "DELETE", path: path, token: b.token()}).status(204)
	b.call(request{method: "DELETE", path: path, token: b.token()}).problem(404, "not_found")
	if got := string(b.get("/v1/push/subscriptions").Body); got != `{"data":[],"next_cursor":null}` {
		t.Errorf("%s", got)
	}
	for _, text := range []string{b.log.String(), string(created.Body)} {
		if strings.Contains(text, "very-secret-path") || strings.Contains(text, code) {
			t.Error("an endpoint or a code has leaked")
		}
	}
}

func TestFiveWrongCodes(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	v := decodeAs[subscriptionView](b.post("/v1/push/subscriptions", asJSON(t, subscription(t, endpoint))).status(201))
	for range 5 {
		b.post("/v1/push/subscriptions/"+v.ID+"/activate", `{"code":"WRONG"}`).problem(409, "wrong_code")
	}
	b.post("/v1/push/subscriptions/"+v.ID+"/activate", `{"code":"WRONG"}`).problem(404, "not_found")
}

// Nobody can have an endpoint pushed to without end: not even by several users.
func TestPushesAboutSubscriptionsAreLimited(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	body := asJSON(t, subscription(t, endpoint))
	for n := range 5 {
		token := b.token(jwt.MapClaims{"sub": []string{"1", "2"}[n%2]})
		if a := b.call(request{method: "POST", path: "/v1/push/subscriptions", token: token, body: body}); a.Status/100 != 2 {
			t.Fatalf("push %d: %d %s", n+1, a.Status, a.Body)
		}
	}
	a := b.call(request{method: "POST", path: "/v1/push/subscriptions", token: b.token(jwt.MapClaims{"sub": "3"}), body: body}).problem(429, "rate_limited")
	if after, err := strconv.Atoi(a.Header.Get("Retry-After")); err != nil || after < 590 || after > 600 {
		t.Errorf("Retry-After: %q, want about ten minutes", a.Header.Get("Retry-After"))
	}
	if got := string(b.call(request{method: "GET", path: "/v1/push/subscriptions", token: b.token(jwt.MapClaims{"sub": "3"})}).Body); got != `{"data":[],"next_cursor":null}` {
		t.Errorf("what was refused is registered: %s", got)
	}
}

func TestBadSubscriptions(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	for _, c := range []struct {
		field  string
		change func(map[string]any)
	}{
		{"endpoint", func(s map[string]any) { delete(s, "endpoint") }},
		{"endpoint", func(s map[string]any) { s["endpoint"] = 1 }},
		{"endpoint", func(s map[string]any) { s["endpoint"] = "http://fcm.googleapis.com/x" }},
		{"endpoint", func(s map[string]any) { s["endpoint"] = "https://169.254.169.254/fcm.googleapis.com" }},
		{"keys.p256dh", func(s map[string]any) { delete(s, "keys") }},
		{"keys.p256dh", func(s map[string]any) { s["keys"].(map[string]any)["p256dh"] = "AAAA" }},
		{"keys.p256dh", func(s map[string]any) { s["keys"].(map[string]any)["p256dh"] = []int{1} }},
		{"keys.auth", func(s map[string]any) { s["keys"].(map[string]any)["auth"] = "" }},
		{"keys", func(s map[string]any) { s["keys"] = "x" }},
		{"label", func(s map[string]any) { s["label"] = strings.Repeat("é", 101) }},
		{"label", func(s map[string]any) { s["label"] = "a\nb" }},
		{"label", func(s map[string]any) { s["label"] = "a\u202eb" }},
		{"label", func(s map[string]any) { s["label"] = 1 }},
		{"lang", func(s map[string]any) { s["lang"] = 1 }},
		{"lang", func(s map[string]any) { s["lang"] = "en_US" }},
		{"lang", func(s map[string]any) { s["lang"] = "deutschdeutsch" }},
		{"lang", func(s map[string]any) { s["lang"] = "de-" }},
		{"lang", func(s map[string]any) { s["lang"] = "de\n" }},
		{"lang", func(s map[string]any) { s["lang"] = strings.Repeat("de-", 11) + "deu" }},
	} {
		s := subscription(t, endpoint)
		c.change(s)
		a := b.post("/v1/push/subscriptions", asJSON(t, s)).problem(400, "invalid_request")
		if p := decodeAs[problem](a); p.Field != c.field {
			t.Errorf("%s, want the field %s", a.Body, c.field)
		}
	}
	s := subscription(t, endpoint)
	s["label"], s["lang"] = strings.Repeat("é", 100), strings.Repeat("de-", 11)+"de"
	b.post("/v1/push/subscriptions", asJSON(t, s)).status(201)
	for body, field := range map[string]string{`{}`: "code", ``: "code", `{"code":1}`: "code", `{"code":"A","x":1}`: "x"} {
		a := b.post("/v1/push/subscriptions/sub_x/activate", body).problem(400, "invalid_request")
		if p := decodeAs[problem](a); p.Field != field {
			t.Errorf("%s: %s", body, a.Body)
		}
	}
}

// TestSubscriptionLanguage: what is pushed to a device is in the language it last
// named, and naming another one changes nothing else.
func TestSubscriptionLanguage(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	browser := subscription(t, endpoint)
	register := func(lang string, status int) subscriptionView {
		t.Helper()
		if browser["lang"] = lang; lang == "" {
			delete(browser, "lang")
		}
		return decodeAs[subscriptionView](b.post("/v1/push/subscriptions", asJSON(t, browser)).status(status))
	}
	sub := register("de-AT", 201)
	path := "/v1/push/subscriptions/" + sub.ID
	p := b.pushed(func(p pushed) bool { return p.Activation.ID == sub.ID })
	if p.Notification.Lang != "de" || p.Notification.Title != "Mitteilungen sind aktiviert" {
		t.Errorf("activation: %+v", p.Notification)
	}
	b.post(path+"/activate", asJSON(t, map[string]string{"code": p.Activation.Code})).status(204)
	for _, step := range []struct{ named, title string }{
		{"", "Testmitteilung"}, {"fr", "Notification de test"}, {"", "Notification de test"}, {"tlh", "Test notification"},
	} {
		if again := register(step.named, 200); again.ID != sub.ID || again.Status != "active" {
			t.Errorf("%q: %+v", step.named, again)
		}
		b.post(path+"/test", "").status(202)
		if p := b.pushed(func(p pushed) bool { return p.Activation.ID == "" }); p.Notification.Title != step.title {
			t.Errorf("%q: %+v, want %s", step.named, p.Notification, step.title)
		}
	}
	register("zh-Hant-TW", 200)
	id := b.challenge("acme", "CARD_3DS", nil)
	p = b.pushed(func(p pushed) bool { return p.Challenge.ID == id })
	if p.Notification.Lang != "zh" || p.Notification.Title != "批准 100.20 USD？" {
		t.Errorf("%+v", p.Notification)
	}
}
