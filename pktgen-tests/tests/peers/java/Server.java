import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpsConfigurator;
import com.sun.net.httpserver.HttpsExchange;
import com.sun.net.httpserver.HttpsParameters;
import com.sun.net.httpserver.HttpsServer;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.util.concurrent.Executors;
import javax.net.ssl.SSLContext;

/**
 * A direct mTLS server: the JDK's HttpsServer is called by a gateway, and sends back what it was sent.
 *
 * <pre>java Server ROOT PORT,CHAIN,KEY...</pre>
 *
 * The caller's SPIFFE ID is in the header X-Peer.
 */
public final class Server {
    public static void main(String[] arguments) throws Exception {
        for (int i = 1; i < arguments.length; i++) {
            String[] parts = arguments[i].split(",");
            var context = Identity.context(parts[1], parts[2], arguments[0]);
            var server = HttpsServer.create(new InetSocketAddress(Integer.parseInt(parts[0])), 0);
            server.setHttpsConfigurator(new CertificateRequired(context));
            server.setExecutor(Executors.newCachedThreadPool());
            server.createContext("/", Server::echo);
            server.start();
        }
    }

    private static void echo(HttpExchange exchange) throws IOException {
        try (exchange) {
            String peer = Identity.peer(((HttpsExchange) exchange).getSSLSession().getPeerCertificates());
            exchange.getResponseHeaders().add("X-Peer", peer);
            exchange.getResponseHeaders().add("X-Runtime", "Java " + System.getProperty("java.version"));
            long length = Long.parseLong(exchange.getRequestHeaders().getFirst("Content-Length"));
            exchange.sendResponseHeaders(200, length);
            exchange.getRequestBody().transferTo(exchange.getResponseBody());
        } catch (IOException broken) {
            throw broken;
        } catch (Exception unfit) {
            throw new IOException(unfit);
        }
    }

    private static final class CertificateRequired extends HttpsConfigurator {
        CertificateRequired(SSLContext context) {
            super(context);
        }

        @Override
        public void configure(HttpsParameters parameters) {
            var ours = getSSLContext().getDefaultSSLParameters();
            ours.setNeedClientAuth(true);
            parameters.setSSLParameters(ours);
        }
    }
}
