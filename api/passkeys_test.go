package api

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"approvalrelay/crypto/passkey/passkeytest"
	"approvalrelay/relay"
)

// publicKey is what navigator.credentials would be given.
func publicKey(a answer) []byte {
	a.t.Helper()
	var o struct {
		PublicKey json.RawMessage `json:"publicKey"`
	}
	must(a.t, json.Unmarshal(a.status(http.StatusOK).Body, &o))
	return o.PublicKey
}

// passkey registers one for the bed's cardholder.
func (b *bed) passkey() (*passkeytest.Authenticator, passkeyView) {
	b.t.Helper()
	a := passkeytest.New("https://relay.example.com", "relay.example.com")
	made := a.Create(publicKey(b.post("/v1/passkeys/options", "")))
	return a, decodeAs[passkeyView](b.post("/v1/passkeys", `{"label":"phone","passkey":`+string(made)+`}`).status(http.StatusCreated))
}

// dear is a challenge that needs a passkey.
func (b *bed) dear() string {
	b.t.Helper()
	return b.challenge("acme", "CARD_3DS", map[string]any{"amount": "1000.01"})
}

func TestApproveWithAPasskeyOverTheAPI(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	a, made := b.passkey()
	id := b.dear()
	path := "/v1/challenges/" + id
	if v := decodeAs[relay.View](b.get(path).status(200)); v.StepUp == nil || v.StepUp.Method != "passkey" {
		t.Fatalf("the challenge does not say what it needs: %+v", v)
	}
	b.post(path+"/approve", "").problem(403, "step_up_required")
	offered := b.post(path+"/step-up", "").status(200)
	if !strings.Contains(string(offered.Body), `"shown":{"amount":"1000.01","currency":"USD","payee":"Sephora Digital"}`) {
		t.Errorf("step-up: %s", offered.Body)
	}
	b.post(path+"/approve", `{"passkey":{}}`).problem(403, "step_up_failed")
	v := decodeAs[relay.View](b.post(path+"/approve", `{"passkey":`+string(a.Get(publicKey(offered)))+`}`).status(200))
	if v.Decision == nil || v.Decision.Shown == nil || *v.Decision.Shown.Amount != "1000.01" || v.Decision.Proof != nil {
		t.Errorf("the cardholder sees %+v", v.Decision)
	}
	ops := decodeAs[relay.View](b.ops("GET", "/ops/v1/challenges/"+id, "").status(200))
	if p := ops.Decision.Proof; p == nil || p.PasskeyID != made.ID || len(p.Signature) == 0 {
		t.Errorf("the operator sees no proof: %+v", ops.Decision)
	}
	if l := decodeAs[list[passkeyView]](b.get("/v1/passkeys").status(200)); len(l.Data) != 1 || l.Data[0].LastUsedAt == nil || *l.Data[0].Label != "phone" {
		t.Errorf("passkeys: %+v", l.Data)
	}
	b.call(request{method: "DELETE", path: "/v1/passkeys/" + made.ID, token: b.token()}).status(204)
	b.post("/v1/challenges/"+b.dear()+"/step-up", "").problem(409, "no_passkey")
}

// TestActionTokensStepUp: the page that a notification opened can confirm, too.
func TestActionTokensStepUp(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	a, _ := b.passkey()
	b.phone("https://fcm.googleapis.com/fcm/send/step-up")
	id := b.dear()
	token := b.actionToken(id)
	call := func(path, body string) answer {
		return b.call(request{method: "POST", path: "/v1/challenges/" + id + path, token: token, body: body})
	}
	call("/approve", "").problem(403, "step_up_required")
	call("/approve", `{"passkey":`+string(a.Get(publicKey(call("/step-up", ""))))+`}`).status(200)
	other := b.dear()
	b.call(request{method: "POST", path: "/v1/challenges/" + other + "/step-up", token: token}).problem(401, "unauthorized")
	b.call(request{method: "POST", path: "/v1/passkeys/options", token: b.actionToken(other)}).problem(401, "unauthorized")
}

// TestPasskeysNeedARecentLogin: an open session alone neither adds nor removes one.
func TestPasskeysNeedARecentLogin(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	now := b.clock.Now()
	for name, at := range map[string]any{"none": nil, "old": now.Add(-recentLogin - time.Minute).Unix(), "future": now.Add(time.Hour).Unix(), "text": "now", "negative": -1} {
		token := b.token(jwt.MapClaims{"auth_time": at})
		for _, r := range []request{{method: "POST", path: "/v1/passkeys/options"}, {method: "POST", path: "/v1/passkeys", body: `{"passkey":{}}`}, {method: "DELETE", path: "/v1/passkeys/pky_x"}} {
			r.token = token
			a := b.call(r).problem(401, "recent_login_required")
			if got := a.Header.Get("WWW-Authenticate"); !strings.Contains(got, `error="insufficient_user_authentication"`) || !strings.Contains(got, "max_age=300") {
				t.Errorf("auth_time %s: WWW-Authenticate %q", name, got)
			}
		}
		b.call(request{method: "GET", path: "/v1/passkeys", token: token}).status(200)
	}
	b.call(request{method: "POST", path: "/v1/passkeys/options", token: b.token(jwt.MapClaims{"auth_time": now.Add(-recentLogin).Unix()})}).status(200)
}

func TestOperatorForgetsPasskeys(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	_, first := b.passkey()
	b.passkey()
	const path = "/ops/v1/merchants/acme/users/12345/passkeys"
	if l := decodeAs[list[passkeyView]](b.ops("GET", path, "").status(200)); len(l.Data) != 2 {
		t.Errorf("passkeys: %+v", l.Data)
	}
	b.ops("DELETE", path+"/"+first.ID, "").status(204)
	b.ops("DELETE", path+"/"+first.ID, "").problem(404, "not_found")
	b.ops("DELETE", path, "").status(204)
	if l := decodeAs[list[passkeyView]](b.get("/v1/passkeys").status(200)); len(l.Data) != 0 {
		t.Errorf("after all were removed: %+v", l.Data)
	}
}

func TestRelatedOriginsAreServed(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	a := b.get("/.well-known/webauthn").status(200)
	if got, want := string(a.Body), `{"origins":["https://relay.example.com","https://app.example.com"]}`; got != want || a.Header.Get("Content-Type") != "application/json" {
		t.Errorf("got %s, want %s", got, want)
	}
}
