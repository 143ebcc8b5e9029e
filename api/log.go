package api

import (
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/gin-gonic/gin"

	"approvalrelay/relay"
)

// logLevel is what is logged on this node: it and what is graver.
type logLevel struct {
	Level string `json:"level"`
}

var logLevels = []string{"debug", "info", "warn", "error"}

func (s *Server) getLogLevel(c *gin.Context) error {
	c.JSON(http.StatusOK, logLevel{strings.ToLower(s.logLevel.Level().String())})
	return nil
}

// setLogLevel holds until this node ends; the other nodes keep theirs.
func (s *Server) setLogLevel(c *gin.Context) error {
	var body logLevel
	if err := decode(c, &body); err != nil {
		return err
	}
	if !slices.Contains(logLevels, body.Level) {
		return relay.Invalid("level", "It must be debug, info, warn or error.")
	}
	from := strings.ToLower(s.logLevel.Level().String())
	if err := s.logLevel.UnmarshalText([]byte(body.Level)); err != nil {
		return err
	}
	// At a level that is still logged.
	s.log.LogAttrs(c.Request.Context(), max(slog.LevelInfo, s.logLevel.Level()), "log level changed", slog.String("from", from), slog.String("to", body.Level))
	c.JSON(http.StatusOK, body)
	return nil
}

// logAction writes one line for every call that may change something, also if it
// was refused: what, on what, and who did it. Of the query it shows what selects,
// and of everything no card number.
func (s *Server) logAction(c *gin.Context) {
	c.Next()
	if c.Request.Method == http.MethodGet {
		return
	}
	var on []any
	for _, p := range c.Params {
		on = append(on, slog.String(p.Key, relay.ScrubText(printable(p.Value))))
	}
	for _, key := range []string{"merchant", "target"} {
		if v := c.Query(key); v != "" {
			on = append(on, slog.String(key, relay.ScrubText(printable(v))))
		}
	}
	attrs := []slog.Attr{slog.String("action", c.Request.Method+" "+c.FullPath()), slog.Group("on", on...), slog.Int("status", c.Writer.Status())}
	if name := operatorName(c.Request.Header); name != "" {
		attrs = append(attrs, slog.String("operator", name))
	}
	s.log.LogAttrs(c.Request.Context(), slog.LevelInfo, "operator action", append(attrs, slog.String("remote_ip", c.ClientIP()), slog.String("request_id", requestID(c)))...)
}

// maxOperatorName is in characters.
const maxOperatorName = 64

// operatorName is who an operator says to be: the admin token does not tell. ""
// for none, and for what is not a name.
func operatorName(h http.Header) string {
	names := h.Values("X-Operator")
	if len(names) != 1 || !utf8.ValidString(names[0]) || utf8.RuneCountInString(names[0]) > maxOperatorName ||
		strings.ContainsFunc(names[0], func(r rune) bool { return !unicode.IsPrint(r) }) {
		return ""
	}
	return relay.ScrubText(names[0])
}
