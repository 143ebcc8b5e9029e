package api

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/gin-gonic/gin"
	"golang.org/x/sync/errgroup"

	"approvalrelay/relay"
)

// An import is read, carried out and answered line by line, so that a million
// cards take no more memory than a batch of them.
const (
	importBatch   = 1000
	importAtOnce  = 32               // lines of a batch under way
	importPause   = 30 * time.Second // of the sender, or of Redis, before it is given up
	importErrors  = 100              // that are told
	maxImportLine = 4 << 10
)

// cardLine is one line of an import.
type cardLine struct {
	number int
	CardID string `json:"card_id"`
	UserID string `json:"user_id"`
}

// importProgress is a line of the answer. Done is in the last one only, after
// which all lines were read.
type importProgress struct {
	Imported int           `json:"imported"`
	Refused  int           `json:"refused"`
	Done     bool          `json:"done,omitempty"`
	Errors   []importError `json:"errors,omitempty"`
}

type importError struct {
	Line   int    `json:"line"`
	Detail string `json:"detail"`
}

// importCards says whose each card is, from NDJSON. Lines that are wrong are
// told and passed over; without Redis it ends with an error, and may be run again.
func (s *Server) importCards(c *gin.Context) error {
	if c.Param("import") != "cards:import" {
		return errNoRoute
	}
	merchant := c.Param("merchant")
	if s.service.Merchants[merchant] == nil {
		return relay.ErrUnknownMerchant
	}
	conn := http.NewResponseController(c.Writer)
	// Not every server that a test or a proxy brings has these; then an import must
	// be as quick as any call.
	_ = conn.EnableFullDuplex()
	lines := bufio.NewScanner(c.Request.Body)
	lines.Buffer(make([]byte, 0, maxImportLine), maxImportLine)
	im := &cardImport{server: s, merchant: merchant}
	c.Header("Content-Type", "application/x-ndjson")
	answer := json.NewEncoder(c.Writer)
	for number, more := 0, true; more; {
		deadline := time.Now().Add(importPause)
		_ = conn.SetReadDeadline(deadline)
		_ = conn.SetWriteDeadline(deadline)
		var batch []cardLine
		for len(batch) < importBatch {
			if more = lines.Scan(); !more {
				break
			}
			number++
			if text := bytes.TrimSpace(lines.Bytes()); len(text) > 0 {
				batch = im.parse(batch, number, text)
			}
		}
		if err := im.carryOut(c, batch); err != nil {
			return s.importFailed(c, answer, im, err)
		}
		if more {
			if err := answer.Encode(importProgress{Imported: im.Imported, Refused: im.Refused}); err != nil {
				return nil // nobody listens any more
			}
			c.Writer.Flush()
		}
	}
	if err := lines.Err(); err != nil {
		detail := "The file broke off."
		if errors.Is(err, bufio.ErrTooLong) {
			detail = "A line has more than 4096 bytes."
		}
		return s.importFailed(c, answer, im, relay.Invalid("body", detail))
	}
	im.Done = true
	_ = answer.Encode(im.importProgress) // nobody may be listening any more
	return nil
}

// importFailed tells the error in the answer that has begun, or else as every
// other.
func (s *Server) importFailed(c *gin.Context, answer *json.Encoder, im *cardImport, err error) error {
	// With both directions open at once the server expects that all was read.
	_, _ = io.Copy(io.Discard, c.Request.Body)
	if !c.Writer.Written() {
		c.Header("Content-Type", "")
		return err
	}
	_ = answer.Encode(struct {
		importProgress
		Code   relay.Code `json:"code"`
		Detail string     `json:"detail"`
	}{im.importProgress, refusal(err).Code, refusal(err).Detail})
	return nil
}

type cardImport struct {
	server   *Server
	merchant string
	mu       sync.Mutex
	importProgress
}

func (im *cardImport) parse(batch []cardLine, number int, text []byte) []cardLine {
	line := cardLine{number: number}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&line); err != nil || dec.More() {
		im.refuse(number, `It must be {"card_id":"…","user_id":"…"}.`)
		return batch
	}
	return append(batch, line)
}

func (im *cardImport) refuse(line int, detail string) {
	im.mu.Lock()
	defer im.mu.Unlock()
	if im.Refused++; len(im.Errors) < importErrors {
		im.Errors = append(im.Errors, importError{line, detail})
	}
}

// carryOut assigns the cards of a batch, in no order.
func (im *cardImport) carryOut(c *gin.Context, batch []cardLine) error {
	g, ctx := errgroup.WithContext(c.Request.Context())
	g.SetLimit(importAtOnce)
	for _, l := range batch {
		g.Go(func() error {
			_, err := im.server.service.AssignCard(ctx, im.merchant, l.CardID, l.UserID)
			if r, ok := errors.AsType[*relay.Refusal](err); ok && r.Code == relay.CodeInvalidRequest {
				im.refuse(l.number, r.Detail)
				return nil
			}
			if err == nil {
				im.mu.Lock()
				im.Imported++
				im.mu.Unlock()
			}
			return err
		})
	}
	return g.Wait()
}
