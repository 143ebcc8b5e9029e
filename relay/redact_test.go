package relay

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

// checkHidden prints, marshals and logs the values in every way there is, and
// looks for what must not be in it.
func checkHidden(t *testing.T, hidden []string, values ...any) {
	t.Helper()
	for _, v := range values {
		var out bytes.Buffer
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		if err := json.NewEncoder(&out).Encode(v); err != nil {
			t.Errorf("%T: %v", v, err)
		}
		slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "v", v)
		slog.New(slog.NewTextHandler(&out, nil)).Info("x", "v", v)
		for _, secret := range hidden {
			if strings.Contains(out.String(), secret) {
				t.Errorf("%T shows %q", v, secret)
			}
		}
	}
}
