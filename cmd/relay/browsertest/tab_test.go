package browsertest

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/accessibility"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/dom"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// tab is one page in Chromium. What is pressed and read is found as a screen
// reader finds it: by accessible role and name.
type tab struct {
	t   testing.TB
	ctx context.Context
}

func (b *tab) must(_ any, err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *tab) open(url string) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, chromedp.Navigate(url)); err != nil {
		b.t.Fatal(err)
	}
}

// node is what assistive technology is told of an element.
type node struct {
	id   cdp.BackendNodeID
	name string
}

// find returns the nodes of a role within root, or the whole document, whose
// names hold all the texts.
func (b *tab) find(root *node, role string, texts ...string) []node {
	params := accessibility.QueryAXTreeParams{Role: role}
	if root != nil {
		params.BackendNodeID = root.id
	} else {
		document, err := chromedp.Call(b.ctx, dom.GetDocument, dom.GetDocumentParams{})
		if err != nil {
			return nil // between two pages
		}
		params.BackendNodeID = document.Root.BackendNodeID
	}
	tree, err := chromedp.Call(b.ctx, accessibility.QueryAXTree, params)
	if err != nil {
		return nil // it has just gone
	}
	var found []node
	for _, n := range tree.Nodes {
		one := node{id: n.BackendDOMNodeID}
		if n.Name != nil && n.Name.Value != nil {
			_ = json.Unmarshal(n.Name.Value, &one.name) // names are strings
		}
		if !n.Ignored && hasAll(one.name, texts) {
			found = append(found, one)
		}
	}
	return found
}

func hasAll(text string, parts []string) bool {
	for _, part := range parts {
		if !strings.Contains(text, part) {
			return false
		}
	}
	return true
}

// article waits for the challenge with this payee and amount.
func (b *tab) article(texts ...string) node {
	b.t.Helper()
	var found []node
	if !until(shownTime, func() bool { found = b.find(nil, "article", texts...); return len(found) == 1 }) {
		b.t.Fatalf("%d articles named %q within %s, want one; the page says:\n%s", len(found), texts, shownTime, b.text())
	}
	return found[0]
}

// button finds a button by its exact name, in root or anywhere.
func (b *tab) button(root *node, name string) (node, bool) {
	for _, n := range b.find(root, "button", name) {
		if n.name == name {
			return n, true
		}
	}
	return node{}, false
}

// click presses the button with this name as soon as there is one.
func (b *tab) click(name string) { b.t.Helper(); b.clickIn(nil, name) }

// clickIn is click within an article.
func (b *tab) clickIn(root *node, name string) {
	b.t.Helper()
	var err error
	if !until(shownTime, func() bool {
		n, ok := b.button(root, name)
		if ok {
			err = b.press(n)
		}
		return ok && err == nil
	}) {
		b.t.Fatalf("no button %q could be pressed within %s (%v); the page says:\n%s", name, shownTime, err, b.text())
	}
}

// press moves the mouse to the middle of a node and clicks, once it stands still:
// what moves is not where it was when the click arrives.
func (b *tab) press(n node) error {
	if _, err := chromedp.Call(b.ctx, dom.ScrollIntoViewIfNeeded, dom.ScrollIntoViewIfNeededParams{BackendNodeID: n.id}); err != nil {
		return err
	}
	var at dom.Quad
	if !until(shownTime, func() bool {
		before := at
		box, err := chromedp.Call(b.ctx, dom.GetContentQuads, dom.GetContentQuadsParams{BackendNodeID: n.id})
		if err != nil || len(box.Quads) == 0 {
			return false
		}
		at = box.Quads[0]
		return slices.Equal(at, before)
	}) {
		return errors.New("it does not stand still")
	}
	return chromedp.Do(b.ctx, chromedp.MouseClickXY((at[0]+at[4])/2, (at[1]+at[5])/2))
}

// awaitButton waits until a button is there, or is not.
func (b *tab) awaitButton(root *node, name string, there bool) {
	b.t.Helper()
	if !until(shownTime, func() bool { _, ok := b.button(root, name); return ok == there }) {
		b.t.Fatalf("the button %q: want it there to be %v within %s; the page says:\n%s", name, there, shownTime, b.text())
	}
}

// status waits until the status live region of an article says something, in
// whatever case.
func (b *tab) status(root node, text string) {
	b.t.Helper()
	var said string
	if !until(shownTime, func() bool {
		said = ""
		for _, n := range b.find(&root, "status") {
			said += " " + b.textOf(n)
		}
		return strings.Contains(strings.ToLower(said), strings.ToLower(text))
	}) {
		b.t.Fatalf("the status is %q after %s, want %q; the page says:\n%s", said, shownTime, text, b.text())
	}
}

func (b *tab) textOf(n node) string {
	object, err := chromedp.Call(b.ctx, dom.ResolveNode, dom.ResolveNodeParams{BackendNodeID: n.id})
	if err != nil {
		return ""
	}
	byValue := true
	result, err := chromedp.Call(b.ctx, runtime.CallFunctionOn, runtime.CallFunctionOnParams{
		FunctionDeclaration: "function() { return this.innerText }", ObjectID: object.Object.ObjectID, ReturnByValue: &byValue,
	})
	if err != nil {
		return ""
	}
	var text string
	_ = json.Unmarshal(result.Result.Value, &text) // innerText is a string
	return text
}

// location is the page's address.
func (b *tab) location() string {
	b.t.Helper()
	return eval[string](b, "location.href")
}

// text is everything the page shows.
func (b *tab) text() string {
	text, err := chromedp.Run(b.ctx, chromedp.Evaluate[string]("document.body?.innerText ?? ''"))
	if err != nil {
		return err.Error()
	}
	return text
}

// sees waits until the page shows one of the texts, in whatever case.
func (b *tab) sees(texts ...string) {
	b.t.Helper()
	if !until(shownTime, func() bool { return b.shows(texts...) }) {
		b.t.Fatalf("the page shows none of %q within %s, but:\n%s", texts, shownTime, b.text())
	}
}

// gone waits until the page shows none of the texts.
func (b *tab) gone(texts ...string) {
	b.t.Helper()
	if !until(shownTime, func() bool { return !b.shows(texts...) }) {
		b.t.Fatalf("the page still shows one of %q after %s:\n%s", texts, shownTime, b.text())
	}
}

func (b *tab) shows(texts ...string) bool {
	page := strings.ToLower(b.text())
	for _, text := range texts {
		if strings.Contains(page, strings.ToLower(text)) {
			return true
		}
	}
	return false
}

// eval runs an expression, awaits it, and returns its value.
func eval[T any](b *tab, expression string) T {
	b.t.Helper()
	value, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		b.t.Fatal(err)
	}
	return value
}
