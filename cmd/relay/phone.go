package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"approvalrelay/cmd/relay/sim"
)

// cardholder calls the cardholder API of a relay with one token, for the
// simulated phones of the demo and the bench.
type cardholder struct {
	client *http.Client
	base   string // the relay's URL
	token  string
}

// post returns the answer's body; a status of 300 or more is an error.
func (c cardholder) post(ctx context.Context, path string, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	req.Header.Set("Content-Type", "application/json")
	res, err := c.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	if err != nil {
		return nil, fmt.Errorf("%s: read the answer: %w", path, err)
	}
	if res.StatusCode >= 300 {
		return nil, fmt.Errorf("%s: status %d: %s", path, res.StatusCode, answer)
	}
	return answer, nil
}

// register goes the way of every browser: subscribe, wait for the push that
// brings the code, activate with it.
func (c cardholder) register(ctx context.Context, phone *sim.Device) error {
	answer, err := c.post(ctx, "/v1/push/subscriptions", phone.JSON())
	if err != nil {
		return err
	}
	var sub struct{ ID string }
	if err := json.Unmarshal(answer, &sub); err != nil {
		return fmt.Errorf("read the subscription: %w", err)
	}
	if err := phone.Wait(ctx, 1); err != nil {
		return fmt.Errorf("the push with the activation code did not come: %w", err)
	}
	var got struct{ Activation struct{ Code string } }
	if err := json.Unmarshal(phone.Notifications()[0].Raw, &got); err != nil {
		return fmt.Errorf("the push with the activation code: %w", err)
	}
	body, err := json.Marshal(map[string]string{"code": got.Activation.Code})
	if err != nil {
		return err
	}
	_, err = c.post(ctx, "/v1/push/subscriptions/"+sub.ID+"/activate", body)
	return err
}
