package main

import (
	"encoding/json"
	"strconv"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/thingspace-gateway/thingspace-gateway/benches/peer-go/gen/thingspace/gateway/v1"
)

// Number of results that a watch reads at once.
const pageSize = 500

// WatchRequest sends the stored results of a change, then new ones. The resume
// token is the number of the last result.
func (g *Gateway) WatchRequest(r *pb.WatchRequestRequest, stream grpc.ServerStreamingServer[pb.WatchRequestResponse]) error {
	change, err := g.store.Change("id = ?", r.ChangeId)
	if err != nil {
		return err
	}
	var after int64
	if r.ResumeToken != "" {
		if after, err = strconv.ParseInt(r.ResumeToken, 10, 64); err != nil {
			return status.Error(codes.InvalidArgument, "resume_token is invalid")
		}
	}
	opened := &pb.WatchRequestResponse_Opened{Opened: &pb.Opened{Change: change}}
	if err := stream.Send(&pb.WatchRequestResponse{ResumeToken: strconv.FormatInt(after, 10), Event: opened}); err != nil {
		return err
	}
	if len(change.RequestIds) == 0 {
		return status.Error(codes.FailedPrecondition, "the change is not accepted")
	}
	requestID := change.RequestIds[0]
	committed, unsubscribe := g.store.Subscribe(requestID)
	defer unsubscribe()
	for {
		results, err := g.store.Results(requestID, after, pageSize)
		if err != nil {
			return status.Error(codes.Unavailable, err.Error())
		}
		for _, result := range results {
			message, err := result.message(change.ChangeId)
			if err != nil {
				return status.Error(codes.DataLoss, err.Error())
			}
			if err := stream.Send(message); err != nil {
				return err
			}
			after = result.seq
		}
		if len(results) == pageSize {
			continue
		}
		if change, err = g.store.Change("id = ?", r.ChangeId); err != nil {
			return err
		}
		if change.Done && len(results) == 0 {
			finished := &pb.WatchRequestResponse_Finished{Finished: &pb.Finished{Change: change}}
			return stream.Send(&pb.WatchRequestResponse{ResumeToken: strconv.FormatInt(after, 10), Event: finished})
		}
		if r.Until == pb.Until_UNTIL_CAUGHT_UP && len(results) == 0 {
			return nil
		}
		if len(results) == 0 {
			select {
			case <-committed:
			case <-stream.Context().Done():
				return stream.Context().Err()
			}
		}
	}
}

// Result is a stored result.
type Result struct {
	seq  int64
	body []byte
}

// Results reads the results of a request after a number.
func (s *Store) Results(requestID string, after int64, limit int) ([]Result, error) {
	rows, err := s.read.Query(`SELECT seq, body FROM results WHERE request_id = ? AND seq > ? ORDER BY seq LIMIT ?`,
		requestID, after, limit)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	results := make([]Result, 0, limit)
	for rows.Next() {
		var result Result
		if err := rows.Scan(&result.seq, &result.body); err != nil {
			return nil, err
		}
		results = append(results, result)
	}
	return results, rows.Err()
}

func (r *Result) message(changeID string) (*pb.WatchRequestResponse, error) {
	var callback Callback
	if err := json.Unmarshal(r.body, &callback); err != nil {
		return nil, err
	}
	result := &pb.DeviceResult{
		ChangeId:             changeID,
		RequestId:            callback.RequestID,
		Outcome:              pb.Outcome_OUTCOME_FAILED,
		StatusText:           callback.Status,
		CallbackCount:        int32(callback.CallbackCount),
		MaxCallbackThreshold: int32(callback.MaxThreshold),
		Source:               pb.Source_SOURCE_CALLBACK,
	}
	if callback.Succeeded() {
		result.Outcome = pb.Outcome_OUTCOME_SUCCEEDED
	}
	for _, id := range callback.DeviceIDs {
		result.DeviceIds = append(result.DeviceIds, &pb.DeviceId{Kind: strings.ToLower(id.Kind), Id: id.ID})
	}
	if fault := callback.FaultResponse; fault != nil {
		result.Fault = &pb.Fault{Code: fault.FaultCode, Text: fault.FaultString}
	}
	return &pb.WatchRequestResponse{
		ResumeToken: strconv.FormatInt(r.seq, 10),
		Event:       &pb.WatchRequestResponse_DeviceResult{DeviceResult: result},
	}, nil
}
