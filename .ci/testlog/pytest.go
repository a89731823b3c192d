package main

import (
	"encoding/xml"
	"io"
	"strings"
)

// pytestSkips finds the skipped tests of pytest's --junit-xml.
func pytestSkips(in io.Reader) ([]skip, error) {
	var doc struct {
		Cases []struct {
			Class   string `xml:"classname,attr"`
			Name    string `xml:"name,attr"`
			Skipped *struct {
				Message string `xml:"message,attr"`
				Text    string `xml:",chardata"`
			} `xml:"skipped"`
		} `xml:"testsuite>testcase"`
	}
	if err := xml.NewDecoder(in).Decode(&doc); err != nil {
		return nil, err
	}
	var found []skip
	for _, c := range doc.Cases {
		if c.Skipped == nil {
			continue
		}
		reason := c.Skipped.Message
		if reason == "" {
			reason = c.Skipped.Text
		}
		found = append(found, skip{c.Class + " " + c.Name, strings.Join(strings.Fields(reason), " ")})
	}
	return found, nil
}
