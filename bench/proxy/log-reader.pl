# Takes the log that HAProxy sends over TCP into a file, as a log daemon would. Arguments: port, file.
use strict;
use warnings;
use Socket;
my ($port, $file) = @ARGV;
socket(my $listener, AF_INET, SOCK_STREAM, 0) or die "socket: $!";
bind($listener, sockaddr_in($port, INADDR_LOOPBACK)) or die "bind: $!";
listen($listener, 8) or die "listen: $!";
open(my $out, '>>', $file) or die "open: $!";
while (accept(my $in, $listener)) {
  while (sysread($in, my $lines, 262144)) { syswrite($out, $lines) }
}
