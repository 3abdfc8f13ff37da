package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// Device is a device in a request.
type Device struct {
	DeviceIDs []DeviceID `json:"deviceIds"`
}

// ThingSpace is a client of the REST API. It logs in at the first request.
type ThingSpace struct {
	base   string
	client *http.Client

	mu             sync.Mutex
	token, session string
	expires        time.Time
}

func newThingSpace(base string) *ThingSpace {
	// A request that is sent on a new connection is never repeated by net/http.
	transport := &http.Transport{DisableKeepAlives: true}
	return &ThingSpace{base: base, client: &http.Client{Transport: transport, Timeout: 30 * time.Second}}
}

// ChangePlan sends a change, and returns the request ID.
func (t *ThingSpace) ChangePlan(ctx context.Context, account, plan string, devices json.RawMessage) (string, error) {
	body, err := json.Marshal(struct {
		Devices     json.RawMessage `json:"devices"`
		AccountName string          `json:"accountName"`
		ServicePlan string          `json:"servicePlan"`
	}{devices, account, plan})
	if err != nil {
		return "", err
	}
	token, session, err := t.login(ctx)
	if err != nil {
		return "", err
	}
	r, err := http.NewRequestWithContext(ctx, "POST", t.base+"/m2m/v1/devices/profile/actions/serviceplan", bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	r.Header.Set("Authorization", "Bearer "+token)
	r.Header.Set("VZ-M2M-Token", session)
	var accepted struct {
		RequestID string `json:"requestId"`
	}
	if err := t.do(r, &accepted); err != nil {
		return "", err
	}
	if accepted.RequestID == "" {
		return "", fmt.Errorf("the response has no request ID")
	}
	return accepted.RequestID, nil
}

func (t *ThingSpace) login(ctx context.Context) (token, session string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if time.Now().Before(t.expires) {
		return t.token, t.session, nil
	}
	form := strings.NewReader(url.Values{"grant_type": {"client_credentials"}}.Encode())
	r, err := http.NewRequestWithContext(ctx, "POST", t.base+"/ts/v1/oauth2/token", form)
	if err != nil {
		return "", "", err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.SetBasicAuth("application", "secret")
	var granted struct {
		AccessToken string `json:"access_token"`
		ExpiresIn   int    `json:"expires_in"`
	}
	if err := t.do(r, &granted); err != nil {
		return "", "", err
	}
	credentials := strings.NewReader(`{"username":"user","password":"password"}`)
	r, err = http.NewRequestWithContext(ctx, "POST", t.base+"/m2m/v1/session/login", credentials)
	if err != nil {
		return "", "", err
	}
	r.Header.Set("Authorization", "Bearer "+granted.AccessToken)
	var opened struct {
		SessionToken string `json:"sessionToken"`
	}
	if err := t.do(r, &opened); err != nil {
		return "", "", err
	}
	t.token, t.session = granted.AccessToken, opened.SessionToken
	t.expires = time.Now().Add(time.Duration(granted.ExpiresIn)*time.Second - time.Minute)
	return t.token, t.session, nil
}

func (t *ThingSpace) do(r *http.Request, into any) error {
	if r.Header.Get("Content-Type") == "" {
		r.Header.Set("Content-Type", "application/json")
	}
	response, err := t.client.Do(r)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		return err
	}
	if response.StatusCode/100 != 2 {
		return fmt.Errorf("ThingSpace responded with %d", response.StatusCode)
	}
	return json.Unmarshal(body, into)
}
