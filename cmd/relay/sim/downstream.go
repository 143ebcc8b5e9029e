package sim

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// webhookTolerance is how far webhook-timestamp may be from the clock, either
// way, as the Standard Webhooks libraries have it.
const webhookTolerance = 5 * time.Minute

// Downstream plays a team's own service: an http.Handler on every path that
// verifies Standard Webhooks signatures and what the relay promises about its
// forwards.
type Downstream struct {
	Journal[Delivery]
	Script[string]
	secrets [][]byte
	now     func() time.Time
}

// Delivery is one attempt that reached the service.
type Delivery struct {
	At         time.Time
	ID         string // webhook-id
	Type       string // X-Relay-Event-Type
	Attempt    int    // X-Relay-Attempt, from 1; 0 when it is missing or no number
	Headers    http.Header
	Body       []byte
	JSON       map[string]any // nil when Body is not a JSON object; numbers as json.Number
	Signatures int            // how many of the service's secrets have a valid signature
	Status     int            // what was answered, 0: nothing
	Fault      string         // why it was refused, "" if it was not
}

// NewDownstream makes a service that knows the given secrets (whsec_ and
// standard base64): one valid signature of any of them is enough, none known
// refuses everything. It panics when one is not base64.
func NewDownstream(secrets ...string) *Downstream {
	d := &Downstream{now: time.Now}
	for i, text := range secrets {
		secret, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(text, "whsec_"))
		if err != nil || len(secret) == 0 {
			panic(fmt.Sprintf("sim: downstream: secret %d is not whsec_ and base64", i+1))
		}
		d.secrets = append(d.secrets, secret)
	}
	return d
}

// Format keeps the secrets out of every fmt verb.
func (d *Downstream) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "sim.Downstream(%d secrets)", len(d.secrets))
}

// Deliveries returns what arrived, oldest first, as far as kept.
func (d *Downstream) Deliveries() []Delivery { return d.all() }

// ServeHTTP takes one delivery: 401 for headers or signatures that do not
// verify, 400 for what contradicts the relay's contract, else 200.
func (d *Downstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	delivery := Delivery{
		At: d.now(), ID: r.Header.Get("webhook-id"),
		Type: r.Header.Get("X-Relay-Event-Type"), Headers: r.Header.Clone(),
	}
	behaviour := d.next(delivery.ID)
	var err error
	if delivery.Body, err = readBody(w, r); err != nil {
		behaviour = Behaviour{}
	} else {
		err = d.verify(&delivery)
	}
	delivery.Status, delivery.Fault = behaviour.answered(err, http.StatusOK), faultText(err)
	d.add(delivery, err != nil)
	behaviour.play(w, r, delivery.Status)
	w.WriteHeader(delivery.Status)
	// The sender may have gone; the delivery is recorded as it was taken.
	_, _ = fmt.Fprintln(w, delivery.Fault)
}

func (d *Downstream) verify(delivery *Delivery) error {
	// Read even if the signature is wrong: a record says what was in it.
	content, jsonErr := object(delivery.Body)
	delivery.JSON = content
	delivery.Attempt, _ = strconv.Atoi(delivery.Headers.Get("X-Relay-Attempt"))

	if err := d.verifySignature(delivery); err != nil {
		return err
	}
	switch {
	case jsonErr != nil:
		return refuse(http.StatusBadRequest, "body: %v", jsonErr)
	case delivery.Type == "":
		return refuse(http.StatusBadRequest, "X-Relay-Event-Type is missing")
	case delivery.Attempt < 1:
		return refuse(http.StatusBadRequest, "X-Relay-Attempt is missing or not a number from 1")
	}
	// The issuer's own envelope has no id; where there is one it must be the header's.
	if id, ok := content["id"]; ok && id != delivery.ID {
		return refuse(http.StatusBadRequest, "id of the body is not webhook-id")
	}
	if kind, ok := content["type"]; ok && kind != delivery.Type {
		return refuse(http.StatusBadRequest, "type of the body is not X-Relay-Event-Type")
	}
	return nil
}

// verifySignature follows the Standard Webhooks specification, "Verifying
// signatures".
func (d *Downstream) verifySignature(delivery *Delivery) error {
	timestamp := delivery.Headers.Get("webhook-timestamp")
	seconds, err := strconv.ParseInt(timestamp, 10, 64)
	if delivery.ID == "" || err != nil {
		return refuse(http.StatusUnauthorized, "webhook-id is missing or webhook-timestamp is not in seconds")
	}
	if off := delivery.At.Sub(time.Unix(seconds, 0)).Abs(); off > webhookTolerance {
		return refuse(http.StatusUnauthorized, "webhook-timestamp is %s off", off.Round(time.Second))
	}
	var given [][]byte
	for token := range strings.FieldsSeq(delivery.Headers.Get("webhook-signature")) {
		text, isV1 := strings.CutPrefix(token, "v1,")
		if signature, err := base64.StdEncoding.DecodeString(text); isV1 && err == nil {
			given = append(given, signature)
		}
	}
	for _, secret := range d.secrets {
		mac := hmac.New(sha256.New, secret)
		fmt.Fprintf(mac, "%s.%s.%s", delivery.ID, timestamp, delivery.Body)
		want := mac.Sum(nil)
		for _, signature := range given {
			if hmac.Equal(signature, want) {
				delivery.Signatures++
				break
			}
		}
	}
	if delivery.Signatures == 0 {
		return refuse(http.StatusUnauthorized, "no v1 signature of webhook-signature verifies")
	}
	return nil
}
