package main

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"io"
	"net/http"
	"strings"
)

const (
	insertResult = `INSERT OR IGNORE INTO results (request_id, digest, body) VALUES (?, ?, ?)`
	countResult  = `UPDATE changes SET succeeded = succeeded + ?, failed = failed + ?,
		state = CASE WHEN succeeded + failed + 1 >= device_count THEN 'FINISHED' ELSE state END
		WHERE request_id = ?`
)

// Callback is the body of a callback.
type Callback struct {
	Username       string          `json:"username,omitempty"`
	Password       string          `json:"password,omitempty"`
	RequestID      string          `json:"requestId"`
	DeviceIDs      []DeviceID      `json:"deviceIds"`
	DeviceResponse json.RawMessage `json:"deviceResponse,omitempty"`
	FaultResponse  *FaultResponse  `json:"faultResponse,omitempty"`
	Status         string          `json:"status"`
	CallbackCount  int             `json:"callbackCount,omitempty"`
	MaxThreshold   int             `json:"maxCallbackThreshold,omitempty"`
}

// DeviceID is an identifier of a device.
type DeviceID struct {
	ID   string `json:"id"`
	Kind string `json:"kind"`
}

// FaultResponse is the reason of a failure.
type FaultResponse struct {
	FaultCode   string `json:"faultcode"`
	FaultString string `json:"faultstring"`
}

// Succeeded reports whether the callback says that the operation succeeded.
func (c *Callback) Succeeded() bool {
	return strings.EqualFold(c.Status, "success")
}

// CallbackHandler stores callbacks. It acknowledges a callback after its commit.
type CallbackHandler struct {
	store              *Store
	username, password string
}

func (h *CallbackHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 256<<10))
	if err != nil {
		http.Error(w, "cannot read the body", http.StatusBadRequest)
		return
	}
	var callback Callback
	if err := json.Unmarshal(body, &callback); err != nil || callback.RequestID == "" {
		http.Error(w, "not a callback", http.StatusBadRequest)
		return
	}
	if !equal(callback.Username, h.username) || !equal(callback.Password, h.password) {
		http.Error(w, "wrong user name or password", http.StatusUnauthorized)
		return
	}
	stored, err := h.store.StoreCallback(&callback)
	if err != nil {
		http.Error(w, "cannot store the callback", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if stored {
		io.WriteString(w, `{"stored":"new"}`)
	} else {
		io.WriteString(w, `{"stored":"duplicate"}`)
	}
}

func equal(a, b string) bool {
	return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1
}

// StoreCallback stores a callback without its credentials, unless it is stored
// already.
func (s *Store) StoreCallback(callback *Callback) (stored bool, err error) {
	callback.Username, callback.Password = "", ""
	count, threshold := callback.CallbackCount, callback.MaxThreshold
	callback.CallbackCount, callback.MaxThreshold = 0, 0
	content, err := json.Marshal(callback)
	if err != nil {
		return false, err
	}
	digest := sha256.Sum256(content)
	callback.CallbackCount, callback.MaxThreshold = count, threshold
	body, err := json.Marshal(callback)
	if err != nil {
		return false, err
	}
	succeeded, failed := 0, 1
	if callback.Succeeded() {
		succeeded, failed = 1, 0
	}
	err = s.Write(func(b *Batch) error {
		result, err := b.Exec(insertResult, callback.RequestID, digest[:], body)
		if err != nil {
			return err
		}
		if rows, err := result.RowsAffected(); err != nil || rows == 0 {
			return err
		}
		stored = true
		b.touched[callback.RequestID] = struct{}{}
		_, err = b.Exec(countResult, succeeded, failed, callback.RequestID)
		return err
	})
	return stored, err
}
