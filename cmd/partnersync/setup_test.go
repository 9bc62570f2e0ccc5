package main

import (
	"strings"
	"testing"

	"partnersync/internal/sandbox"
)

// What goes wrong while fields are made is told, keeps nothing else from being made, and makes nothing twice.
func TestSetupThatBreaksOff(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		fault sandbox.Fault
		want  string // of the field that it befalls
		there bool   // it was made all the same
	}{
		{"the connection breaks after it was made", sandbox.Fault{Effect: sandbox.EffectReset, Apply: true}, "failed   orders.order_key: nobody knows whether it was made: ", true},
		{"and before", sandbox.Fault{Effect: sandbox.EffectReset}, "failed   orders.order_key: nobody knows whether it was made: ", false},
		{"the CRM is down", sandbox.Fault{Effect: sandbox.EffectStatus, Status: 503}, "failed   orders.order_key: nobody knows whether it was made: HTTP 503: ", false},
		{"it refuses", sandbox.Fault{Effect: sandbox.EffectStatus, Status: 400, Body: `{"category":"VALIDATION_ERROR","message":"too many"}`}, "failed   orders.order_key: HTTP 400: too many\n         In HubSpot: Settings, Properties, select the object orders", false},
		{"there is one that it does not show", sandbox.Fault{Effect: sandbox.EffectStatus, Status: 409, Body: `{"category":"OBJECT_ALREADY_EXISTS","message":"archived"}`}, "failed   orders.order_key: the CRM has one of this name that it does not show: HTTP 409: archived", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, shopConfig, "")
			w.box.Undefine("hubspot", "orders", "title")
			w.box.Undefine("hubspot", "orders", "order_key")
			fault := tt.fault
			fault.Method, fault.Contains, fault.Count = "POST", `"order_key"`, 1
			w.box.Fault(fault)
			code, said := w.tried("setup", "crm")
			if code != 1 || !strings.Contains(said, tt.want) || !strings.Contains(said, "made     orders.title (text)\n") || !strings.Contains(said, ": 1 not done\n") {
				t.Errorf("exit code %d:\n%s", code, said)
			}
			if w.box.Defined("hubspot", "orders", "order_key") != tt.there {
				t.Errorf("made: %v", !tt.there)
			}
			again := "made     orders.order_key (text, a key)\nthere    orders.title\n"
			if tt.there {
				again = "there    orders.order_key\nthere    orders.title\n"
			}
			if code, said := w.tried("setup", "crm"); code != 0 || said != again {
				t.Errorf("once more: exit code %d:\n%s", code, said)
			}
			if strings.Contains(said, crmToken) {
				t.Error("the token is told")
			}
		})
	}
}

// Where nobody can look nothing is made.
func TestSetupThatSeesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, shopConfig, "")
	w.box.Undefine("hubspot", "orders", "title")
	w.box.Fault(sandbox.Fault{Method: "GET", Effect: sandbox.EffectReset})
	if code, said := w.tried("setup", "crm"); code != 1 || !strings.Contains(said, "failed   orders: what it has cannot be seen: ") || strings.Contains(said, "made") {
		t.Errorf("exit code %d:\n%s", code, said)
	}
	if w.box.Defined("hubspot", "orders", "title") {
		t.Error("it was made all the same")
	}
	w.write(strings.Replace(shopConfig, "    preset: hubspot\n", "    preset: hubspot\n    account: \"62515\"\n", 1))
	if code, said := w.tried("setup", "crm"); code != 1 || !strings.Contains(said, "whose account it is cannot be told, and the config allows account 62515 alone") {
		t.Errorf("exit code %d:\n%s", code, said)
	}
	w.box.Reset()
	w.box.SetAccount(999)
	if code, said := w.tried("setup", "crm"); code != 1 || !strings.Contains(said, "the credentials are of account 999, and the config allows account 62515 alone\n") {
		t.Errorf("exit code %d:\n%s", code, said)
	}
	if w.box.Defined("hubspot", "orders", "title") {
		t.Error("it was made in another account")
	}
	w.box.SetAccount(62515)
	if code, said := w.tried("setup", "crm"); code != 0 || !strings.Contains(said, "made     orders.title (text)\n") {
		t.Errorf("exit code %d:\n%s", code, said)
	}
	w.env = append(w.env, "CRM_TOKEN=")
	if code, said := w.tried("setup", "crm"); code != 2 || !strings.Contains(said, "the credentials of crm are not set here\n") {
		t.Errorf("exit code %d:\n%s", code, said)
	}
}
